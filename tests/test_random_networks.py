"""The generator of random networks reaches all that a network can be made of."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from random_networks import FLOAT_ONLY, networks
from snnpipe.network.check import check
from snnpipe.network.layers import Delay, Network
from snnpipe.network.neurons import LI, CubaLI, Sum, is_driven, parameters
from snnpipe.network.support import PARTS, Recurrent

DRAWS = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def features(network: Network) -> set[object]:
    """Types of its parts, and what else a network may have."""
    found: set[object] = {type(layer.neuron) for layer in network.layers}
    found |= {type(operation) for _, _, operation in network.operations()}
    found |= {len(network.input_shape)}
    contract = network.contract
    found |= {contract.compare, contract.reset, contract.reset_time}
    for layer in network.layers:
        found |= {"driven"} if is_driven(layer.neuron) else set()
        for name, values in parameters(layer.neuron).items():
            found |= {f"{name} off the grid"} if (values * 8 % 1).any() else {f"{name} dyadic"}
        for synapse in layer.synapses:
            late = network.late(layer, synapse)
            delays = [op.steps for op in synapse.operations if isinstance(op, Delay)]
            found |= {f"delay {steps}" for steps in delays}
            if late:
                found |= {Recurrent, f"from {type(network.layer(synapse.source).neuron).__name__}"}
                found |= {f"into {type(layer.neuron).__name__}"}
                found |= {"to itself" if synapse.source == layer.name else "to an earlier layer"}
                found |= {"recurrent and delayed"} if delays else set()
                found |= set() if synapse.operations else {"recurrent identity"}
    return found


EVERYWHERE = {
    *PARTS,
    *(1, 2, 3, "gt", "ge", "value", "subtract", "same_step", "next_after_decay", "driven"),
    *("delay 0", "delay 1", "delay 2", "delay 3", "to itself", "to an earlier layer"),
    *("recurrent and delayed", "recurrent identity"),
    *(f"{end} {kind}" for end in ("from", "into") for kind in ("LIF", "CubaLIF", "Threshold")),
    *("from Sum", "into Sum"),
    *(f"{name} off the grid" for name in ("decay", "synaptic_decay", "threshold", "v_reset")),
    *(f"{name} off the grid" for name in ("gain", "synaptic_gain", "leak")),
}


def test_every_part_is_reached_and_check_lets_all_pass() -> None:
    seen: Counter[object] = Counter()

    @DRAWS
    @given(networks())
    def look(network: Network) -> None:
        check(network)
        seen.update(features(network))
        inner = [layer.neuron for layer in network.layers if layer.name != network.output]
        assert not any(isinstance(neuron, LI | CubaLI) for neuron in inner)

    look()
    assert {what for what in EVERYWHERE if seen[what] < 5} == set(), seen


def test_what_is_left_out_does_not_occur() -> None:
    @DRAWS
    @given(networks(v_reset=False, without=FLOAT_ONLY))
    def look(network: Network) -> None:
        found = features(network)
        assert found.isdisjoint(FLOAT_ONLY)
        for layer in network.layers:
            own = parameters(layer.neuron)
            assert not own.get("v_reset", np.zeros(())).any()

    look()


def test_integrators_stand_anywhere_when_asked_for() -> None:
    seen: Counter[type] = Counter()

    @DRAWS
    @given(networks(graded=True))
    def look(network: Network) -> None:
        check(network)
        seen.update(type(x.neuron) for x in network.layers if x.name != network.output)

    look()
    assert min(seen[LI], seen[CubaLI], seen[Sum]) >= 5
