"""One layer per core: what each core would hold, and which limits of the chip that breaks.

The memory of a synapse list is estimated as the public block format of Loihi has it: lists of at
most ``block`` synapses behind a header, rounded up to words; convolutions are unrolled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..network.contract import Integer
from ..network.fanout import SynapseCount, is_graded
from ..network.layers import Delay, Layer, Network, Synapse
from ..network.neurons import Spiking
from .chip import Chip, Limits, SynapseFormat

DEFAULT_WEIGHT_BITS = 8
"""Width that weights are taken to have when the network is not in integers."""

_CORE_LIMITS = (
    "neurons_per_core",
    "axons_in",
    "axons_out",
    "syn_bits_per_core",
    "thresholds_per_core",
)


@dataclass(frozen=True)
class CoreUse:
    """What one layer needs of one core: neurons, sources that reach it, messages its neurons send
    when all fire once, bits of synapse memory (None without a format), distinct thresholds.
    """

    layer: str
    neurons: int
    axons_in: int
    axons_out: int
    synapse_bits: int | None
    thresholds: int


@dataclass(frozen=True)
class Excess:
    """A limit that a layer breaks on a core of its own."""

    layer: str
    limit: str
    needed: int
    allowed: int


@dataclass(frozen=True)
class Mapping:
    """Cores in the order of layers, the limits they break, and those that were not checked."""

    cores: tuple[CoreUse, ...]
    unmapped: tuple[Excess, ...]
    unchecked: tuple[str, ...]
    weight_bits: int
    chips: int


def axon_bits(synapses: NDArray[np.int64], weight_bits: int, form: SynapseFormat) -> int:
    """Bits of the synapse lists of axons with so many ``synapses`` each."""

    def block(count: NDArray[np.int64]) -> NDArray[np.int64]:
        bits = count * (weight_bits + form.idx_bits) + form.header_bits
        return -(-bits // form.word_bits) * form.word_bits * (count > 0)

    full, rest = np.divmod(synapses, form.block)
    one_block = int(block(np.array([form.block]))[0])
    return int(full.sum()) * one_block + int(block(rest).sum())


def messages_sent(counts: Sequence[SynapseCount], source: str) -> NDArray[np.int64]:
    """For each element of a source, to how many layers' cores one spike of it goes."""
    reached: dict[str, NDArray[np.bool_]] = {}
    for count in counts:
        if count.source == source:
            here = count.fan_out > 0
            reached[count.layer] = reached[count.layer] | here if count.layer in reached else here
    return np.sum(list(reached.values()), axis=0, dtype=np.int64) if reached else np.zeros(1, int)


def _core(
    network: Network,
    layer: Layer,
    counts: Sequence[SynapseCount],
    host_input: bool,
    bits: int,
    form: SynapseFormat | None,
) -> CoreUse:
    lists: dict[str, NDArray[np.int64]] = {}
    for count in counts:
        if count.layer == layer.name and not (host_input and count.source == network.input):
            lists[count.source] = lists.get(count.source, np.int64(0)) + count.fan_out
    neuron = layer.neuron
    thresholds = np.unique(neuron.threshold).size if isinstance(neuron, Spiking) else 0
    sent = np.broadcast_to(messages_sent(counts, layer.name), layer.shape).sum()
    memory = None
    if form is not None:
        memory = sum(axon_bits(fan_out, bits, form) for fan_out in lists.values())
    return CoreUse(
        layer.name,
        layer.size,
        sum(int(np.count_nonzero(fan_out)) for fan_out in lists.values()),
        int(sent),
        memory,
        thresholds,
    )


def _delay(synapse: Synapse) -> int:
    return sum(op.steps for op in synapse.operations if isinstance(op, Delay))


def _broken(
    network: Network, layer: Layer, core: CoreUse, limits: Limits, bits: int
) -> list[Excess]:
    broken = []
    needs = (core.neurons, core.axons_in, core.axons_out, core.synapse_bits, core.thresholds)
    for name, needed in zip(_CORE_LIMITS, needs, strict=True):
        allowed = getattr(limits, name)
        if allowed is not None and needed is not None and needed > allowed:
            broken.append(Excess(layer.name, name, needed, allowed))
    if limits.weight_bits is not None and bits > limits.weight_bits[1]:
        broken.append(Excess(layer.name, "weight_bits", bits, limits.weight_bits[1]))
    delay = max((_delay(synapse) for synapse in layer.synapses), default=0)
    if limits.delay_max is not None and delay > limits.delay_max:
        broken.append(Excess(layer.name, "delay_max", delay, limits.delay_max))
    sends = any(s.source == layer.name for other in network.layers for s in other.synapses)
    if limits.graded_bits == 0 and sends and is_graded(network, layer.name):
        broken.append(Excess(layer.name, "graded_bits", 1, 0))
    return broken


def one_layer_per_core(
    network: Network, chip: Chip, counts: Sequence[SynapseCount], host_input: bool
) -> Mapping:
    """Every layer on a core of its own; ``host_input``: the host computes what the input sends,
    so that its synapses need no memory here.
    """
    arithmetic = network.contract.arithmetic
    bits = arithmetic.weight_bits if isinstance(arithmetic, Integer) else DEFAULT_WEIGHT_BITS
    limits, form = chip.limits, chip.syn_format
    if limits.conv_sharing:  # unrolled lists say nothing about a chip that shares kernels
        limits = replace(limits, axons_in=None, syn_bits_per_core=None)
    cores, unmapped = [], []
    for layer in network.layers:
        core = _core(network, layer, counts, host_input, bits, form)
        cores.append(core)
        unmapped += _broken(network, layer, core, limits, bits)
    names = (*_CORE_LIMITS, "weight_bits", "delay_max", "graded_bits", "cores")
    unchecked = [name for name in names if getattr(limits, name) is None]
    if form is None and limits.syn_bits_per_core is not None:
        unchecked.append("syn_bits_per_core")
    chips = -(-len(cores) // limits.cores) if limits.cores else 1
    return Mapping(tuple(cores), tuple(unmapped), tuple(unchecked), bits, chips)
