"""What a spiking network is held against on the same chip file, and where it would break even.

The ANN of the same shape does one multiply-accumulate for every weight and element it meets. The
fair partner of a rate code of T steps is a quantised ANN with ceil(log2(T+1))-bit activations (Yan,
Bai, Wong, arXiv:2409.08290); its products are priced at 8 bits, an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from ..network.fanout import dense_macs
from ..network.layers import Network
from ..network.neurons import IF, Spiking, Sum, Threshold
from .chip import Chip, Price
from .memory import access
from .pricing import Line, add, grade, priced
from .report import Ann, BreakEven, Total
from .terms import stored_weights

Prices = Mapping[str, Price]
PARTNER_BITS = 8
"""Width at which a partner's products are priced."""


def _ratio(snn: Total, total: Total) -> float | None:
    own, other = snn.all_samples.value, total.all_samples.value
    return own / other if own is not None and other and not snn.label else None


@dataclass(frozen=True)
class _Shape:
    """One layer as an ANN: its MACs, elements that enter and leave, and stored weights."""

    macs: int
    inputs: int
    outputs: int
    weights: int


def _shapes(network: Network) -> list[_Shape]:
    macs = dense_macs(network)
    return [
        _Shape(
            macs[layer.name],
            sum(math.prod(network.shape_of(name)) for name in {s.source for s in layer.synapses}),
            layer.size,
            stored_weights(network, layer.name),
        )
        for layer in network.layers
    ]


def _moved(chip: Chip, network: Network, samples: int, bits: int, reuse: bool) -> list[Line]:
    """Words an ANN moves: with full reuse each once, without any two for every product."""
    memory = chip.memory
    if memory is None:
        return []
    lines = []
    for one in _shapes(network):
        weight = access(chip, memory.weight_bits, one.weights * memory.weight_bits)
        value = access(chip, bits, one.inputs * bits)
        out = access(chip, memory.activation_bits, one.outputs * memory.activation_bits)
        lines += [
            Line("weight_reads", "weights", (one.weights if reuse else one.macs) * samples,
                 (weight,)),
            Line("input_reads", "inputs", (one.inputs if reuse else one.macs) * samples, (value,)),
            Line("outputs", "outputs", one.outputs * samples, (out,)),
        ]  # fmt: skip
    return lines


def _arithmetic(chip: Chip, prices: Prices, macs: int) -> list[Line]:
    """Products and sums of so many multiply-accumulates."""
    if chip.model == "memory":
        return [
            Line("multiplications", "multiplications", macs, priced(prices.get("mul_pj"))),
            Line("additions", "additions", macs, priced(prices.get("add_pj"))),
        ]
    mac = prices.get("mac_pj")
    return [Line("macs", "multiply-accumulates", macs, priced(mac))]


def baselines(
    network: Network, chip: Chip, number_format: str, steps: int, samples: int, snn: Total
) -> tuple[Ann, ...]:
    """The ANN of the same shape, its int8 form and the quantised partner, as far as the chip's file
    has prices for multiply-accumulates; with a memory each without reuse and with full reuse.
    """
    macs, bits = sum(dense_macs(network).values()), steps.bit_length()  # ceil(log2(steps + 1))
    if chip.model not in ("ac_mac", "memory"):
        reason = f"chip '{chip.name}' has no price for a multiply-accumulate"
        return (Ann("ANN", macs, bits, "", None, reason, None),)
    forms = [number_format] if chip.model == "ac_mac" else [""]
    forms += ["int8"] if chip.model == "ac_mac" and number_format != "int8" else []
    rows = [(f"ANN {form or 'int8'}", form, PARTNER_BITS) for form in forms]
    rows.append((f"quantised ANN, {bits}-bit activations", forms[-1], bits))
    found = []
    for name, form, width in rows:
        for reuse in ("none", "full") if chip.memory else ("",):
            prices = chip.energy.get(form, {})
            lines = _arithmetic(chip, prices, macs * samples)
            lines += _moved(chip, network, samples, width, reuse == "full")
            total = add(lines).total(samples, grade(lines), "")
            reason = "" if total.all_samples.value is not None else "a price is missing"
            ratio = _ratio(snn, total) if form == number_format else None
            found.append(Ann(name, macs, bits, reuse, total, reason, ratio))
    return tuple(found)


def break_even(
    macs: int, inputs: int, neurons: int, steps: int,
    mac: Fraction, synop: Fraction, spike: Fraction, update: Fraction,
) -> Fraction | None:  # fmt: skip
    """Spikes of each input element at which a layer costs what its ANN does; None: at none.

    n (macs a + inputs g) + T neurons u = macs m, for n; with prices m of a MAC, a of a synaptic
    operation, g of a spike and u of an update.
    """
    per_spike = macs * synop + inputs * spike
    left = macs * mac - steps * neurons * update
    return left / per_spike if left > 0 and per_spike else None


def _layer_prices(
    chip: Chip, prices: Prices, shape: _Shape, leaky: bool
) -> list[tuple[str, Fraction, Fraction, Fraction, Fraction]]:
    """(against which ANN, prices m, a, g, u) of one layer; none without a price for a MAC."""
    value = {key: Fraction(price.value) for key, price in prices.items()}
    none = Fraction(0)
    if chip.model == "ac_mac" and value.keys() >= {"mac_pj", "ac_pj"}:
        return [("", value["mac_pj"], value["ac_pj"], none, none)]
    memory = chip.memory
    if memory is None or not value.keys() >= {"add_pj", "mul_pj", "compare_pj", "decay_pj"}:
        return []

    def word(bits: int, count: int) -> Fraction:
        return Fraction(access(chip, bits, count * bits).value)

    weight = word(memory.weight_bits, shape.weights)
    state = word(memory.state_bits, shape.outputs)
    product = value["mul_pj"] + value["add_pj"]
    synop = value["add_pj"] + weight + 2 * state
    spike = 2 * word(memory.address_bits, shape.inputs)
    update = 2 * state + value["compare_pj"] + (value["decay_pj"] if leaky else 0)
    fetched = product + weight + word(memory.activation_bits, shape.inputs)
    return [("none", fetched, synop, spike, update), ("full", product, synop, spike, update)]


def break_evens(
    network: Network,
    chip: Chip,
    prices: Prices,
    emitted: Mapping[str, int],
    steps: int,
    samples: int,
) -> tuple[BreakEven, ...]:
    """Per layer that spikes feed: at how many spikes of an input element it would cost what the
    ANN's layer does, and how many there were. ``emitted``: spikes of each layer, all samples.
    """
    found = []
    for layer, shape in zip(network.layers, _shapes(network), strict=True):
        names = {s.source for s in layer.synapses}
        spiking = all(
            name in network.by_name and isinstance(network.layer(name).neuron, Spiking)
            for name in names
        )
        if not spiking or not shape.macs:
            continue
        actual = Fraction(sum(emitted[name] for name in names), shape.inputs * samples)
        leaky = not isinstance(layer.neuron, IF | Sum | Threshold)
        for reuse, *parts in _layer_prices(chip, prices, shape, leaky):
            even = break_even(shape.macs, shape.inputs, shape.outputs, steps, *parts)
            found.append(
                BreakEven(
                    layer.name,
                    reuse,
                    float(actual),
                    None if even is None else float(even),
                    None if even is None or not actual else float(even / actual),
                )
            )
    return tuple(found)
