"""What Lava cannot express is refused by name before anything is built; no Lava is needed here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from integer_networks import random_integer_network
from snnpipe import plugins
from snnpipe.deploy.lava.lowering import lower
from snnpipe.deploy.lava.selftest import self_test_network
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract, Float32, Integer
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Shape,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import IF, LIF, CubaLIF, Neuron, Sum


def some(*shape: int, value: float = 2) -> np.ndarray:
    return np.full(shape, value, np.float32)


def network(
    *operations: Operation,
    entering: Shape = (2, 4, 4),
    shape: Shape = (3,),
    neuron: Neuron | None = None,
    exponents: dict[str, int] | None = None,
    **contract: Any,
) -> Network:
    neuron = neuron or LIF(some(value=0.5), some(value=9))
    layer = Layer("a", neuron, shape, (Synapse("in", operations),))
    arithmetic = Integer(8, {"a": 0}, {}, exponents or {})
    return Network("in", entering, (layer,), "a", Contract(3, arithmetic=arithmetic, **contract))


def images(channels: int, **fields: Any) -> Conv:
    kernel = fields.pop("kernel", (1, 1))
    return Conv("conv", some(channels, 2 // fields.get("groups", 1), *kernel), **fields)


DENSE = Dense("dense", some(3, 32))
FLAT = Flatten("flat")
REFUSED = {
    "two maps": (
        network(SumPool("pool", (2, 2), (2, 2)), FLAT, Dense("dense", some(3, 8))),
        "synapse from 'in' into layer 'a': its connections are one linear map each, here are "
        "'pool' and 'dense'; make one of them",
    ),
    "a mean": (
        network(AvgPool("mean", (2, 2), (2, 2)), shape=(2, 2, 2)),
        "'mean' .*averages",
    ),
    "a delayed convolution": (
        network(images(3), Delay("wait", 2), shape=(3, 4, 4)),
        r"'wait' \(Delay, layer 'a'\): only its dense connections have delays",
    ),
    "a long delay": (
        network(Delay("wait", 60), FLAT, Delay("more", 4), DENSE),
        "delays by 64 steps; Lava holds at most 63",
    ),
    "a convolution's exponent": (
        network(images(3), shape=(3, 4, 4), exponents={"conv": -1}),
        r"'conv' \(layer 'a'\): its convolutions have no exponent",
    ),
    "at the threshold": (
        network(FLAT, DENSE, compare="ge"),
        "compare 'ge', a neuron of Lava fires strictly above the threshold",
    ),
    "subtraction": (network(FLAT, DENSE, reset="subtract"), "reset 'subtract', a neuron of Lava"),
    "large products": (
        network(FLAT, Dense("dense", some(3, 32, value=254)), input_levels=2**18),
        "layer 'a' can add up to 2130706432; expected at most",
    ),
    "large sums": (
        network(
            FLAT, Dense("dense", some(3, 32, value=254)), exponents={"dense": 8}, input_levels=9
        ),
        "layer 'a' can add up to 18726912; expected at most 16777216, which 32 bits hold",
    ),
    "no integers": (
        network(FLAT, DENSE).with_contract(Contract(3, arithmetic=Float32())),
        "this one's arithmetic is float32; quantise it first",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_lava_cannot_express_is_refused_by_name(name: str) -> None:
    made, message = REFUSED[name]
    with pytest.raises(RequestError, match=message):
        plugins.load("runtimes", "lava").check(made)


def test_just_within_is_taken() -> None:
    for made in (
        network(Delay("wait", 60), FLAT, Delay("more", 3), DENSE),
        network(
            FLAT, Dense("dense", some(3, 32, value=254)), exponents={"dense": 8}, input_levels=8
        ),
    ):
        plugins.load("runtimes", "lava").check(made)


def branches(middle: Neuron) -> Network:
    first = Layer("a", IF(some(value=9)), (3,), (Synapse("in", (FLAT, DENSE)),))
    second = Layer("b", middle, (3,), (Synapse("a"),))
    last = Layer("c", Sum(), (2,), (Synapse("b", (Dense("last", some(2, 3)),)),))
    arithmetic = Integer(8, {"a": 0})
    contract = Contract(3, arithmetic=arithmetic)
    return Network("in", (2, 4, 4), (first, second, last), "c", contract)


def test_sums_are_for_the_end() -> None:
    with pytest.raises(RequestError, match=r"'b': a sum inside the network.*meet in a spiking"):
        lower(branches(Sum()))
    lower(branches(IF(some(value=0))))
    back = branches(IF(some(value=0)))
    loop = Synapse("c", (Dense("loop", some(3, 2)),))
    first = replace(back.layers[0], synapses=(*back.layers[0].synapses, loop))
    with pytest.raises(RequestError, match="'a': it is fed by the read-out 'c'"):
        lower(replace(back, layers=(first, *back.layers[1:])))


def test_the_host_knows_the_input_only() -> None:
    plain = branches(IF(some(value=0)))
    hosted = replace(plain.contract.arithmetic, host_scale={"b": 3}, bias_exponents={"b": 2})
    with pytest.raises(RequestError, match=r"'b': the host computes its current.*fed by 'a'"):
        lower(plain.with_contract(plain.contract.with_arithmetic(hosted)))
    late = network(Delay("wait", 1), FLAT, DENSE)
    hosted = Integer(8, {"a": 2}, {"a": 3})
    with pytest.raises(RequestError, match=r"'wait'.*the host computes this current without"):
        lower(late.with_contract(late.contract.with_arithmetic(hosted)))


def test_the_fields_of_a_chip() -> None:
    cuba = CubaLIF(some(value=3 / 4096), some(3, value=0.75), some(value=131071))
    made = network(FLAT, replace(DENSE, bias=some(3, value=-5)), neuron=cuba, input_levels=3)
    found = lower(made)
    arrays = {name: array.flat[0] for name, array in found.arrays.items()}
    assert arrays == {
        **{"0.du": 4092, "0.dv": 1024, "0.vth": 131071},
        **{"0.bias_exp": 0, "0.bias_mant": -320, "0.0.weight": 2},
    }
    (layer,) = found.request["layers"]
    (synapse,) = layer["synapses"]
    assert (synapse["kind"], synapse["message_bits"], synapse["weight_exp"]) == ("dense", 2, 0)


def test_the_host_may_average() -> None:
    mean = AvgPool("mean", (2, 2), (2, 2))
    made = network(mean, FLAT, Dense("dense", some(3, 8)))
    hosted = Integer(8, {"a": 7}, {"a": 3})
    made = made.with_contract(made.contract.with_arithmetic(hosted))
    for name in ("lava", "lava_standard", "lava_batched"):
        plugins.load("runtimes", name).check(made)


def test_values_above_one_are_graded_however_they_are_made() -> None:
    for scale, levels, bits in ((2.0, 1, 2), (0.5, 2, 0), (1.0, 1, 0), (4.0, 3, 4)):
        made = network(FLAT, DENSE, input_scale=scale, input_levels=levels)
        (layer,) = lower(made).request["layers"]
        assert layer["synapses"][0]["message_bits"] == bits


def test_legal_networks_are_taken() -> None:
    for seed in range(40):
        lower(random_integer_network(seed, legal_for_lava=True, overflow=bool(seed % 2)))
    lower(self_test_network())
