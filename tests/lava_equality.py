"""Whether the reference, the engine and Lava's models did the same, state by state."""

from __future__ import annotations

import numpy as np
from snnpipe import plugins
from snnpipe.deploy.lava.models import ModelsSession
from snnpipe.network.dynamics import loihi_reset
from snnpipe.network.layers import Network
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record, Trace, join


def _states(network: Network, x: np.ndarray, steps: int) -> tuple[Trace, dict[str, np.ndarray]]:
    """The reference's trace, and its membranes (T, B, *shape) before their decision."""
    membranes: dict[str, list[np.ndarray]] = {}

    def watch(name: str, _: int, v: np.ndarray, *others: object) -> None:
        membranes.setdefault(name, []).append(v)

    everything = Record(currents=x.shape[-1 - len(network.input_shape)])
    trace = simulate(network, x, steps, everything, watch=watch)
    return trace, {name: np.stack(v) for name, v in membranes.items()}


def _facts(trace: Trace) -> dict[str, np.ndarray]:
    named = {"spikes": trace.spikes, "currents": trace.currents, "fired": trace.fired}
    flat = {f"{k}.{name}": v for k, values in named.items() for name, v in values.items()}
    return {"outputs": trace.outputs, **flat}


def _unequal(one: dict[str, np.ndarray], two: dict[str, np.ndarray], who: str) -> list[str]:
    if set(one) != set(two):
        return [f"{who}: {sorted(set(one) ^ set(two))}"]
    return [f"{who}: {name}" for name in one if not np.array_equal(one[name], two[name])]


def lava_differences(
    network: Network, x: np.ndarray, session: ModelsSession, runtime: str | None = "event"
) -> tuple[list[str], int]:
    """Names of what differs between the reference, a runtime and Lava; how many values were held
    against each other in Lava: outputs, and of every neuron and step its current, spike and
    membrane."""
    steps = network.contract.steps
    expected, before = _states(network, x, steps)
    everything = Record(currents=expected.samples)
    parts = list(session.watched(x, steps))
    found = join([session.trace_of(frames, did, everything) for frames, did in parts])
    wrong = _unequal(_facts(expected), _facts(found), "lava")
    compared = expected.outputs.size
    for name, v in before.items():
        did = [part[name] for _, part in parts]
        spikes = np.concatenate([one.value for one in did], axis=1)
        after = np.concatenate([one.v for one in did], axis=1)
        if not np.array_equal(loihi_reset(v, spikes), after):
            wrong.append(f"lava: membranes of {name}")
        compared += 3 * v.size
    if runtime is not None:
        opened = plugins.load("runtimes", runtime).open(network, None)
        trace = opened.run(x, steps, everything)
        wrong += _unequal(_facts(expected), _facts(trace), runtime)
    return wrong, compared
