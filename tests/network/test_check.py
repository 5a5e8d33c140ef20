"""What check refuses, layer by layer and value by value; and what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from integer_networks import integer_networks
from random_networks import networks
from small_network import small_network
from snnpipe.errors import RequestError
from snnpipe.network.check import check
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Scale,
    SumPool,
    Synapse,
)
from snnpipe.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron, Sum, Threshold


def f32(*values: Any) -> np.ndarray:
    return np.array(values if len(values) > 1 else values[0], np.float32)


@given(networks())
@settings(max_examples=25, derandomize=True, deadline=None)
def test_random_networks_pass(network: Network) -> None:
    assert check(network) is None


@given(integer_networks())
@settings(max_examples=15, derandomize=True, deadline=None)
def test_random_integer_networks_pass(network: Network) -> None:
    assert check(network, "integer") is None


def _first(network: Network, **changes: Any) -> Network:
    """With its first layer changed."""
    return replace(network, layers=(replace(network.layers[0], **changes), *network.layers[1:]))


def _conv(**changes: Any) -> Network:
    network = small_network()
    conv = network.layers[0].synapses[0].operations[0]
    return _first(network, synapses=(Synapse("input", (replace(conv, **changes),)),))


def _neuron(**changes: Any) -> Network:
    network = small_network()
    return _first(network, neuron=replace(network.layers[0].neuron, **changes))


def _nan() -> np.ndarray:
    weight = np.ones((4, 1, 3, 2), np.float32)
    weight[1, 0, 2, 1] = np.nan
    return weight


def _chain(*operations: Operation, neuron: Neuron | None = None) -> Network:
    """One layer over (2, 5)."""
    layer = Layer("a", neuron or IF(f32(1)), (2, 5), (Synapse("input", operations),))
    return Network("input", (2, 5), (layer,), "a", Contract(2))


def _line(weight: np.ndarray | None = None, **changes: Any) -> Network:
    """A convolution over one axis, which keeps the length as it stands."""
    kernel = np.ones((2, 2, 1)) if weight is None else weight
    return _chain(replace(Conv1d("c", kernel.astype(np.float32)), **changes))


def _loop(first: Neuron, second: Neuron, *back: Operation) -> Network:
    """Two layers that feed each other."""
    layers = (
        Layer("a", first, (2, 5), (Synapse("input"), Synapse("b", back))),
        Layer("b", second, (2, 5), (Synapse("a"),)),
    )
    return Network("input", (2, 5), layers, "b", Contract(2))


FLOAT_PASSES: dict[str, Network] = {
    "line": _line(),
    "scale": _chain(Scale("s", f32(1, 2, 3, 4, 5))),
    "delays": _chain(Delay("d", 0), Delay("e", 2**20)),
    "zero gain": _chain(neuron=CubaLI(f32(0), f32(0), f32(0), f32(0), f32(-1))),
    "loop with a membrane": _loop(IF(f32(1)), Sum()),
    "loop with another": _loop(Sum(), LI(f32(0.5))),
    "loop with a delay": _loop(Threshold(f32(1)), Sum(), Delay("d", 1)),
    "layer that feeds itself": _first(_chain(), synapses=(Synapse("input"), Synapse("a"))),
    "late reset": _chain().with_contract(
        Contract(2, reset="subtract", reset_time="next_after_decay")
    ),
}


@pytest.mark.parametrize("row", FLOAT_PASSES)
def test_float_level_lets_pass(row: str) -> None:
    assert check(FLOAT_PASSES[row]) is None


SMALL = small_network()
POOL = SMALL.layers[1].synapses[0].operations[0]
FLOAT_ROWS: dict[str, tuple[Network, str, str]] = {
    "name with a slash": (_first(SMALL, name="a/b"), "E_NAME", "'a/b'"),
    "name of dots": (replace(SMALL, output_port=".."), "E_NAME", "'..'"),
    "name too long": (_first(SMALL, name="n" * 101), "E_NAME", "1 to 100"),
    "layer named as an operation": (_first(SMALL, name="pool"), "E_NAME", "'pool'"),
    "output port named as the input": (replace(SMALL, output_port="input"), "E_NAME", "'input'"),
    "two operations of one name": (_conv(name="fc"), "E_NAME", "'fc'"),
    "no steps": (SMALL.with_contract(Contract(0)), "E_VALUE", "0 steps"),
    "unknown output": (replace(SMALL, output="readuot"), "E_LAYER", "did you mean 'readout'"),
    "unknown source": (_first(SMALL, synapses=(Synapse("imput"),)), "E_LAYER", "'imput'"),
    "no synapse": (_first(SMALL, synapses=()), "E_LAYER", "'lif' has no synapse"),
    "delay of -1": (_chain(Delay("d", -1)), "E_VALUE", "'d' (layer 'a') waits -1 steps"),
    "delay too long": (_chain(Delay("d", 2**20 + 1)), "E_VALUE", "expected 0 to 1048576"),
    "kernel over two axes": (_line(np.ones((2, 2, 3, 1))), "E_SHAPE", "expected 3 axes"),
    "kernel longer than the line": (_line(np.ones((2, 2, 7))), "E_SHAPE", "'c'"),
    "groups of a line that do not divide": (_line(groups=3), "E_SHAPE", "3 groups for 2"),
    "line of stride zero": (_line(stride=0), "E_VALUE", "stride [1, 0]"),
    "line without channels": (
        replace(_line(), input_shape=(10,)), "E_SHAPE", "expected [2, L]",
    ),
    "scale that does not broadcast": (_chain(Scale("s", f32(1, 2, 3))), "E_SHAPE", "'s'"),
    "scale that broadcasts the line": (
        _chain(Scale("s", np.ones((3, 2, 5), np.float32))), "E_SHAPE", "[3, 2, 5]",
    ),
    "scale that is not a number": (_chain(Scale("s", f32(np.nan))), "E_VALUE", "the scale holds"),
    "scale of float64": (_chain(Scale("s", np.ones(5))), "E_DTYPE", "the scale has dtype float64"),
    "synaptic decay one": (
        _chain(neuron=CubaLIF(f32(1), f32(0.5), f32(1))), "E_VALUE", "the synaptic_decay holds 1.0",
    ),
    "decay of an integrator": (_chain(neuron=LI(f32(-0.5))), "E_VALUE", "the decay holds -0.5"),
    "threshold of zero and no membrane": (
        _chain(neuron=Threshold(f32(0))), "E_VALUE", "the threshold holds 0.0",
    ),
    "infinite gain": (
        _chain(neuron=IF(f32(1), gain=f32(np.inf))), "E_VALUE", "'a': the gain holds inf",
    ),
    "leak that does not broadcast": (
        _chain(neuron=LI(f32(0.5), leak=f32(1, 2, 3))), "E_SHAPE", "the leak has shape [3]",
    ),
    "loop of sums": (
        _loop(Sum(), Sum()), "E_CYCLE", "'a' -> 'b' -> 'a', where nothing has a state",
    ),
    "loop without a membrane": (_loop(Threshold(f32(1)), Sum()), "E_CYCLE", "'a' -> 'b' -> 'a'"),
    "loop with a delay of 0": (_loop(Sum(), Sum(), Delay("d", 0)), "E_CYCLE", "'a' -> 'b' -> 'a'"),
    "layer before what feeds it": (
        replace(_chain(), layers=(Layer("b", Sum(), (2, 5), (Synapse("a"),)), *_chain().layers)),
        "E_CYCLE", "layer 'b' stands before 'a', which feeds it",
    ),
    "refractory steps": (
        SMALL.with_contract(Contract(2, refractory=3)), "E_UNSUPPORTED", "refractory periods (3",
    ),
    "no reset": (SMALL.with_contract(Contract(2, reset="none")), "E_UNSUPPORTED", "a reset are"),
    "late reset to a value": (
        SMALL.with_contract(Contract(2, reset_time="next_after_decay")), "E_UNSUPPORTED",
        "by subtraction only",
    ),
    "layer of another shape": (_first(SMALL, shape=(4, 3, 4)), "E_SHAPE", "[4, 3, 4]"),
    "layer without an axis": (_first(SMALL, shape=()), "E_SHAPE", "'lif'"),
    "axis of zero": (replace(SMALL, input_shape=(2, 0, 5)), "E_SHAPE", "[2, 0, 5]"),
    "too many elements": (replace(SMALL, input_shape=(2**20, 2**20)), "E_SHAPE", "1048576"),
    "identity of another shape": (_first(SMALL, synapses=(Synapse("input"),)), "E_SHAPE", "'lif'"),
    "groups that do not divide": (_conv(groups=3), "E_SHAPE", "3 groups for 4"),
    "no groups": (_conv(groups=0), "E_SHAPE", "0 groups"),
    "kernel of rank 3": (_conv(weight=np.ones((4, 1, 3), np.float32)), "E_SHAPE", "'conv'"),
    "bias too long": (_conv(bias=np.ones(5, np.float32)), "E_SHAPE", "[5]"),
    "kernel larger than the image": (
        _conv(weight=np.ones((4, 1, 9, 9), np.float32)), "E_SHAPE", "'conv'",
    ),
    "stride zero": (_conv(stride=(1, 0)), "E_VALUE", "stride [1, 0]"),
    "padding negative": (_conv(padding=(-1, 0)), "E_VALUE", "padding [-1, 0]"),
    "dilation zero": (_conv(dilation=(0, 1)), "E_VALUE", "dilation [0, 1]"),
    "pool of zero": (
        replace(SMALL, layers=(
            SMALL.layers[0],
            replace(SMALL.layers[1], synapses=(Synapse("lif", (replace(POOL, kernel=(0, 2)),)),)),
        )), "E_VALUE", "kernel [0, 2]",
    ),
    "NaN weight": (_conv(weight=_nan()), "E_VALUE", "'conv' (layer 'lif'): the weight holds nan"),
    "infinite bias": (_conv(bias=f32(0, 0, np.inf, 0)), "E_VALUE", "the bias holds inf"),
    "weights of float64": (_conv(weight=np.ones((4, 1, 3, 2))), "E_DTYPE", "float64"),
    "threshold zero": (_neuron(threshold=f32(0)), "E_VALUE", "the threshold holds 0.0"),
    "threshold negative": (
        _neuron(threshold=f32(1, 1, -0.5, 1).reshape(4, 1, 1)), "E_VALUE", "-0.5",
    ),
    "threshold infinite": (_neuron(threshold=f32(np.inf)), "E_VALUE", "inf"),
    "decay one": (_neuron(decay=f32(1)), "E_VALUE", "the decay holds 1.0"),
    "decay negative": (_neuron(decay=f32(-0.25)), "E_VALUE", "-0.25"),
    "threshold that does not broadcast": (
        _neuron(threshold=np.ones(4, np.float32)), "E_SHAPE", "[4]",
    ),
    "threshold that broadcasts the layer": (
        _neuron(threshold=np.ones((2, 4, 3, 3), np.float32)), "E_SHAPE", "[2, 4, 3, 3]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", FLOAT_ROWS)
def test_float_level_refuses(row: str) -> None:
    network, code, text = FLOAT_ROWS[row]
    with pytest.raises(RequestError) as caught:
        check(network)
    assert caught.value.code == code, caught.value.message
    assert text in caught.value.message


# --- integers ---


def _integer(
    operations: tuple[Operation, ...] = (Dense("w", f32([[2, -4], [6, 0]])),),
    neuron: Neuron | None = None,
    bits: int = 8,
    exponents: dict[str, int] | None = None,
    host: dict[str, int] | None = None,
    weight_exponents: dict[str, int] | None = None,
    shape: tuple[int, ...] = (2,),
    source_shape: tuple[int, ...] = (2,),
    **contract: Any,
) -> Network:
    """One spiking layer fed by spikes, and a read-out of its 2 neurons."""
    exponents = {"a": 0} if exponents is None else exponents
    arithmetic = Integer(bits, exponents, host or {}, weight_exponents or {})
    spikes = Layer("s", IF(f32(1)), source_shape, (Synapse("input"),))
    layer = Layer("a", neuron or IF(f32(7)), shape, (Synapse("s", operations),))
    return Network(
        "input", source_shape, (spikes, layer), "a",
        Contract(**{"steps": 4, "arithmetic": arithmetic, **contract}),
    )  # fmt: skip


def _recurrent() -> Network:
    network = _integer()
    spikes, layer = network.layers
    back = Synapse("a", (Dense("back", f32([[-2, 4], [0, 2]])),))
    return replace(network, layers=(spikes, replace(layer, synapses=(*layer.synapses, back))))


def _readout(weight: float, steps: int, bias: float = 0.0) -> Network:
    """Weights on two inputs that are at most 1."""
    dense = Dense("w", f32([[weight, weight]]), f32([bias]) if bias else None)
    arithmetic = Integer(8, {"out": 0})
    return Network(
        "input", (2,), (Layer("out", Sum(), (1,), (Synapse("input", (dense,)),)),), "out",
        Contract(steps, arithmetic=arithmetic),
    )  # fmt: skip


def _wide(n: int, weight: float, neuron: Neuron, steps: int = 4) -> Network:
    """n spikes with one weight into one neuron."""
    return _integer(
        (Dense("w", np.full((1, n), weight, np.float32)),), neuron, shape=(1,), source_shape=(n,),
        steps=steps,
    )  # fmt: skip


def _biased(bias: float, exponents: dict[str, int]) -> Network:
    return _integer((Dense("w", f32([[2, -4], [6, 0]]), f32(0, bias)),), exponents=exponents)


def _weights(*values: float, bits: int = 8) -> Network:
    return _integer((Dense("w", f32([values[:2], values[2:]])),), bits=bits)


QUARTER = LIF(f32(0.25), f32(7))
HALF = LIF(f32(0.5), f32(7))
INTEGER_PASSES: dict[str, Network] = {
    "mixed": _integer(),
    "ends of mixed": _weights(254, -256, 0, 2),
    "odd excitatory": _weights(1, 3, 255, 0),
    "odd inhibitory": _weights(-1, -3, -255, 0),
    "all zero": _weights(0, 0, 0, 0),
    "4 bits mixed": _weights(224, -256, 32, 0, bits=4),
    "4 bits excitatory": _weights(240, 16, 0, 48, bits=4),
    "1 bit inhibitory": _weights(-128, 0, 0, -128, bits=1),
    "bias in 1/64": _biased(5 / 64, {"a": 0}),
    "bias of 4095 << 7": _biased(4095 * 128 / 64, {"a": 7}),
    "bias of -4096 << 7": _biased(-4096 * 128 / 64, {"a": 7}),
    "no bias, no exponent": _integer(exponents={}),
    "threshold 131071": _integer(neuron=IF(f32(131071))),
    "threshold 0": _integer(neuron=IF(f32(0))),
    "decay of 1/4096": _integer(neuron=LIF(f32(1 / 4096), f32(7))),
    "sum of 131070": _wide(514, -255, LIF(f32(0), f32(7))),
    "membrane down to -8355600": _wide(330, -211, HALF),
    "ge": _integer(compare="ge"),
    "subtract": _integer(reset="subtract"),
    "synaptic current": _integer(neuron=CubaLIF(f32(4095 / 4096), f32(0.5), f32(7))),
    "delay": _integer((Delay("d", 3), Dense("w", f32([[2, -4], [6, 0]])))),
    "loop": _recurrent(),
    "exponents": _integer(weight_exponents={"w": -7}),
    "sum pool before the weights": _integer(
        (SumPool("p", (1, 2), (1, 2)), Flatten("f"), Dense("w", f32([[2, -4], [6, 0]]))),
        source_shape=(1, 1, 4),
    ),
    "host weights are free": _integer(
        (AvgPool("p", (1, 2), (1, 2)), Flatten("f"), Dense("w", f32([[0.3, 9e3]] * 2))),
        host={"a": 10},
        source_shape=(1, 1, 4),
    ),
    "readout just below": _readout(130, 504),
}  # fmt: skip


@pytest.mark.parametrize("row", INTEGER_PASSES)
def test_integer_level_lets_pass(row: str) -> None:
    assert check(INTEGER_PASSES[row], "integer") is None


INTEGER_ROWS: dict[str, tuple[Network, str, str]] = {
    "float arithmetic": (SMALL, "E_UNSUPPORTED", "float32; expected integer"),
    "exponent of no operation": (
        _integer(weight_exponents={"v": 1}), "E_LAYER", "'v' an exponent, which is no dense map",
    ),
    "9 bits": (_integer(bits=9), "E_RANGE", "9 bits"),
    "0 bits": (_integer(bits=0), "E_RANGE", "0 bits"),
    "exponent 8": (_integer(exponents={"a": 8}), "E_RANGE", "exponent 8"),
    "exponent of no layer": (_integer(exponents={"x": 0}), "E_LAYER", "'x'"),
    "host of no layer": (_integer(host={"x": 1}), "E_LAYER", "'x'"),
    "host without exponent": (_integer(host={"a": 1}, exponents={}), "E_RANGE", "'a'"),
    "host scale 0": (_integer(host={"a": 0}), "E_RANGE", "scale 0"),
    "fraction": (_weights(2, 0.5, 0, 0), "E_RANGE", "'w' (layer 'a') has the weight 0.5 at [0, 1]"),
    "256": (_weights(2, 256, 0, 0), "E_RANGE", "256 at [0, 1]"),
    "-257": (_weights(2, 0, -257, 0), "E_RANGE", "-257 at [1, 0]"),
    "odd in a mixed matrix": (_weights(3, -2, 0, 0), "E_RANGE", "8 bits in mixed mode keep 2"),
    "255 in a mixed matrix": (_weights(255, -2, 0, 0), "E_RANGE", "keep 254"),
    "-256 without a positive weight": (
        _weights(-256, -128, 0, 0), "E_RANGE", "8 bits in inhibitory mode keep -255",
    ),
    "16 of 4 mixed bits": (_weights(16, -32, 0, 0, bits=4), "E_RANGE", "multiples of 32"),
    "8 of 4 bits": (_weights(8, 0, 0, 0, bits=4), "E_RANGE", "multiples of 16"),
    "conv kernel": (
        _integer(
            (Conv("w", f32([[[[1, -2]]], [[[4, 6]]]])), Flatten("f")), source_shape=(1, 1, 2)
        ), "E_RANGE", "1 at [0, 0, 0, 0], of which 8 bits in mixed mode keep 0",
    ),
    "bias off its exponent": (_biased(5 / 64, {"a": 1}), "E_RANGE", "mantissa 2.5 at [1]"),
    "bias too large": (_biased(4096 / 64, {"a": 0}), "E_RANGE", "mantissa 4096"),
    "bias too small": (_biased(-4097 / 64, {"a": 0}), "E_RANGE", "mantissa -4097"),
    "bias without exponent": (_biased(1, {}), "E_RANGE", "no exponent"),
    "gain": (_integer(neuron=LIF(f32(0.25), f32(7), gain=f32(2))), "E_UNSUPPORTED", "gain 1"),
    "leak": (_integer(neuron=LIF(f32(0.25), f32(7), leak=f32(1))), "E_UNSUPPORTED", "leak 0"),
    "late reset": (
        _integer(reset="subtract", reset_time="next_after_decay"), "E_UNSUPPORTED",
        "subtracts its threshold one step later",
    ),
    "average": (
        _integer((AvgPool("p", (1, 2), (1, 2)), Flatten("f")), source_shape=(1, 1, 4)),
        "E_UNSUPPORTED", "'p' (layer 'a') averages",
    ),
    "two matrices": (
        _integer((Dense("w", f32([[2, 2]] * 2)), Dense("x", f32([[2, 2]] * 2)))),
        "E_UNSUPPORTED", "2 weight matrices",
    ),
    "threshold 131072": (_integer(neuron=IF(f32(131072))), "E_RANGE", "131072"),
    "threshold 7.5": (_integer(neuron=IF(f32(7, 7.5))), "E_RANGE", "7.5 at [1]"),
    "v_reset": (_integer(neuron=IF(f32(7), f32(-1))), "E_UNSUPPORTED", "reset to -1"),
    "decay 0.2": (_integer(neuron=LIF(f32(0.2), f32(7))), "E_RANGE", "1/4096"),
    "sum of 131250": (_wide(525, -250, QUARTER), "E_RANGE", "131250"),
    "sum of +131250": (_wide(525, 250, QUARTER), "E_RANGE", "131250"),
    "synaptic decay 0.2": (
        _integer(neuron=CubaLIF(f32(0.2), f32(0.5), f32(7))), "E_RANGE", "synaptic decay 0.2",
    ),
    "membrane below -V_MAX": (_wide(330, -212, HALF), "E_RANGE", "-8395200"),
    "IF below -V_MAX in 4 steps": (_wide(330, -100, IF(f32(7))), "E_RANGE", "-8448000"),
    "readout saturates": (_readout(130, 505), "E_RANGE", "505 steps"),
    "readout saturates by its bias": (_readout(130, 504, 1), "E_RANGE", "504 steps"),
}  # fmt: skip


@pytest.mark.parametrize("row", INTEGER_ROWS)
def test_integer_level_refuses(row: str) -> None:
    network, code, text = INTEGER_ROWS[row]
    with pytest.raises(RequestError) as caught:
        check(network, "integer")
    assert caught.value.code == code, caught.value.message
    assert text in caught.value.message


INTEGERS = Integer(8, {})
REFUSED_PARTS: dict[str, Network] = {
    "'c' (Conv1d, layer 'a')": _line(),
    "'s' (Scale, layer 'a')": _chain(Scale("s", f32(2))),
    "'a' (LI, layer 'a')": _chain(neuron=LI(f32(0.5))),
    "'a' (CubaLI, layer 'a')": _chain(neuron=CubaLI(f32(0.5), f32(0.5))),
    "'a' (Threshold, layer 'a')": _chain(neuron=Threshold(f32(7))),
}


@pytest.mark.parametrize("what", REFUSED_PARTS)
def test_integers_do_not_have_every_part(what: str) -> None:
    network = REFUSED_PARTS[what]
    network = network.with_contract(network.contract.with_arithmetic(INTEGERS))
    assert check(network) is None
    with pytest.raises(RequestError) as caught:
        check(network, "integer")
    assert caught.value.code == "E_UNSUPPORTED", caught.value.message
    assert f"integers cannot hold {what}: " in caught.value.message
