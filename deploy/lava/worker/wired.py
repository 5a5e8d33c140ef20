"""A wiring in Lava's real runtime: every process its own, spikes through Lava's own channels.

The request: ``plan`` (`snnpipe.network.wires`), ``steps`` and ``samples``, ``batch``, and
``config``, the name of Lava's run configuration. The arrays: those of the plan, and for each stream
``stream.<name>``, (T or 1, samples, *shape). The answer: per layer ``spikes.<name>``, the bits
(T, samples, ceil(N/8)), and ``sums``, int32 (T, samples, N), where a read-out sums; beside it
``seconds``: of building and starting, of running, of stopping.

Samples follow each other in time, ``batch`` of them side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from .frames import Arrays

_SIGN_OF_LIFE = 5.0
"""Seconds between two; the runtime is let go on for so long at a time."""


class Kit(Protocol):
    """What a program makes processes of. ``front``: the axes before a population's own."""

    front: tuple[int, ...]

    def stream(self, facts: Mapping[str, Any], values: Any, clock: Clock) -> Any:
        """An out port that sends ``values`` (T or 1, samples, *Lava's shape)."""
        ...

    def connection(self, facts: Mapping[str, Any], weight: Any, clock: Clock) -> tuple[Any, Any]:
        """The in port and the out port of a connection."""
        ...


class Clock:
    """How samples lie in time."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.steps, self.samples, self.batch = (
            int(request[name]) for name in ("steps", "samples", "batch")
        )
        self.groups = -(-self.samples // self.batch)
        self.shown = self.groups * self.steps
        self.total = self.shown + int(request["plan"]["depth"])


def turned(values: Any, front: int) -> Any:
    """All axes but the first ``front`` in the opposite order."""
    return values.transpose([*range(front), *range(values.ndim - 1, front - 1, -1)])


def carried(port: Any, kit: Kit, have: list[int], want: list[int]) -> Any:
    """A port of values held as ``have`` reversed, as ``want`` reversed; both in (C, H, W)."""
    if have == want:
        return port

    def flipped(port: Any, rank: int) -> Any:
        front = len(kit.front)
        axes = [*range(front), *range(front + rank - 1, front - 1, -1)]
        return port.transpose(axes) if rank > 1 else port

    port = flipped(port, len(have)).reshape((*kit.front, *want))
    return flipped(port, len(want))


def _neurons(facts: Mapping[str, Any], arrays: Arrays, key: str, kit: Kit, steps: int) -> Any:
    from lava.proc.lif.process import LIF, LIFReset

    def own(name: str) -> Any:
        values = arrays[f"{key}.{name}"].astype(int)
        return values if values.ndim else int(values)

    shape = (*kit.front, *facts["shape"][::-1])
    given = {name: own(name) for name in ("du", "dv", "vth", "bias_mant")}
    given["bias_exp"] = facts["bias_exp"]
    if facts["relay"]:
        return LIF(shape=shape, **given)
    offset = facts["depth"] + 1
    return LIFReset(shape=shape, reset_interval=steps, reset_offset=offset, **given)


def _config(name: str) -> Any:
    from lava.magma.core import run_configs

    if name not in ("Loihi2SimCfg", "Loihi2HwCfg"):
        raise ValueError(f"there is no run configuration {name!r}")
    return getattr(run_configs, name)(select_tag="fixed_pt")


def _built(request: Mapping[str, Any], arrays: Arrays, kit: Kit, clock: Clock) -> Any:
    """All processes, connected; one of them, which runs all."""
    from .processes import Record, mapped

    plan = request["plan"]
    populations = {
        facts["name"]: (facts, _neurons(facts, arrays, f"population{n}", kit, clock.steps))
        for n, facts in enumerate(plan["populations"])
    }
    senders = {name: (facts["shape"], unit.s_out) for name, (facts, unit) in populations.items()}
    receivers = {name: (facts["shape"], unit.a_in) for name, (facts, unit) in populations.items()}
    recorded = [
        (f"spikes.{facts['name']}", facts["depth"], facts["shape"], unit.s_out)
        for facts, unit in populations.values()
        if not facts["relay"]
    ]
    for facts in plan["streams"]:
        values = turned(arrays[f"stream.{facts['name']}"], 2)
        port = kit.stream(facts, values, clock)
        senders[facts["name"]] = (facts["shape"], port)
        if facts["layer"]:
            port.connect(receivers[facts["layer"]][1])
    last = None
    if facts := plan["readout"]:
        shape = (*kit.front, *facts["shape"][::-1])
        mapped("sums", (clock.shown, *shape), np.int32)
        last = Record(name="sums", shape=shape, first=facts["depth"])
        receivers[facts["name"]] = (facts["shape"], last.a_in)
    for n, facts in enumerate(plan["connections"]):
        entry, leaving = kit.connection(facts, arrays[f"connection{n}.weight"], clock)
        shape, port = senders[facts["source"]]
        carried(port, kit, shape, facts["enters"]).connect(entry)
        shape, port = receivers[facts["target"]]
        carried(leaving, kit, facts["gives"], shape).connect(port)
    for name, depth, shape, port in recorded:
        count = int(np.prod(shape))
        mapped(name, (clock.shown, *kit.front, -(-count // 8)), np.uint8)
        last = Record(name=name, shape=(*kit.front, count), first=depth)
        carried(port, kit, shape, [count]).connect(last.a_in)
    return last


def run_wired(
    request: Mapping[str, Any], arrays: Arrays, alive: Callable[[], None], kit: Kit
) -> tuple[dict[str, Any], Arrays]:
    """Build, run and stop; what every layer did."""
    from lava.magma.core.run_conditions import RunSteps

    from .processes import SHARED

    clock, start = Clock(request), time.monotonic()
    SHARED.clear()
    process = _built(request, arrays, kit, clock)
    config = _config(request["config"])
    process.run(condition=RunSteps(num_steps=1), run_cfg=config)
    alive()
    begun = time.monotonic()
    done, at_once = 1, 1
    while done < clock.total:
        at_once, before = min(at_once, clock.total - done), time.monotonic()
        process.run(condition=RunSteps(num_steps=at_once), run_cfg=config)
        done += at_once
        if time.monotonic() - before > _SIGN_OF_LIFE / 4:
            alive()
        else:
            at_once *= 2
    ended = time.monotonic()
    # Not in a `finally`: behind a failure Lava's stop never returns and hides it; the parent, told
    # of the failure, ends the whole session.
    process.stop()
    seconds = {
        "start": begun - start,
        "run": ended - begun,
        "stop": time.monotonic() - ended,
        "time_steps": clock.total,
    }
    return {"seconds": seconds}, {
        name: _by_sample(values, clock, len(kit.front), name == "sums")
        for name, values in SHARED.items()
        if name == "sums" or name.startswith("spikes.")
    }


def _by_sample(values: Any, clock: Clock, front: int, sums: bool) -> Any:
    """(groups * T, batch, ...) as it was seen, to (T, samples, N or bytes)."""
    if not front:
        values = values[:, None]
    if sums:
        values = turned(values, 2)
    split = values.reshape(clock.groups, clock.steps, clock.batch, -1)
    together = split.transpose(1, 0, 2, 3).reshape(clock.steps, -1, split.shape[-1])
    return np.ascontiguousarray(together[:, : clock.samples])
