"""What each tile of a layer would need of a core, for any way of cutting the layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..network.layers import Layer, Network, Shape
from ..network.neurons import Spiking
from .chip import Chip, Limits, SynapseFormat
from .reach import Counts, Cuts, Mask, Reach, image, overlaps, reach_of, tables

CORE_LIMITS = (
    *("neurons_per_core", "axons_in", "axons_out", "syn_bits_per_core", "thresholds_per_core"),
    *("fan_in", "targets_per_neuron"),
)
"""Limits that hold for one core, in the order in which they are reported."""


Lists = tuple[list[tuple[Counts, Counts]], Counts]
Known = dict[tuple[int, int, int], Lists]
"""Lists of synapses by synapse, axis and number of ranges."""


@dataclass(frozen=True)
class Storage:
    """How a chip keeps synapses: their width, the form of their lists, and whether a core keeps a
    kernel once. ``form`` None: lists are not counted."""

    bits: int
    form: SynapseFormat | None
    sharing: bool

    @staticmethod
    def of(chip: Chip, bits: int) -> Storage:
        """A chip's way of keeping synapses of ``bits``."""
        return Storage(bits, chip.syn_format, chip.limits.conv_sharing)


@dataclass(frozen=True, eq=False)
class Uncut:
    """A layer that is to be cut: its image, what its synapses reach by source, its thresholds (None
    where it has none), and for each neuron how many cores its spike goes to, int64 of the image.
    """

    name: str
    image: Shape
    reaches: dict[str, tuple[Reach, ...]]
    thresholds: NDArray[np.float32] | None
    targets: Counts

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.image))


def uncut(network: Network, layer: Layer, targets: Counts, host_input: bool) -> Uncut:
    """A layer as it is cut; ``host_input``: the host computes what the input sends."""
    found: dict[str, tuple[Reach, ...]] = {}
    for synapse in layer.synapses:
        if not (host_input and synapse.source == network.input):
            own = reach_of(network, synapse, layer.shape)
            found[synapse.source] = (*found.get(synapse.source, ()), own)
    thresholds = None
    if isinstance(layer.neuron, Spiking):
        full = np.broadcast_to(layer.neuron.threshold, layer.shape)
        thresholds = full.reshape(image(layer.shape))
    return Uncut(layer.name, image(layer.shape), found, thresholds, targets)


def axon_bits(synapses: Counts, weight_bits: int, form: SynapseFormat) -> Counts:
    """Bits of the synapse list of each axon, by its number of synapses."""

    def block(count: Counts) -> Counts:
        bits = count * (weight_bits + form.idx_bits) + form.header_bits
        return np.asarray(-(-bits // form.word_bits) * form.word_bits * (count > 0))

    full, rest = np.divmod(synapses, form.block)
    return np.asarray(full * block(np.array(form.block)) + block(rest))


def _lists(mask: Mask, ranges: Sequence[slice]) -> Lists:
    """How many neurons of each range of one axis a source element reaches: for each kind of range
    the numbers and how many elements have them, and the kind of each range."""
    reach = np.add.reduceat(mask, [cut.start for cut in ranges], axis=1, dtype=np.int64)
    kinds, index = np.unique(np.sort(reach, axis=0), axis=1, return_inverse=True)
    return [np.unique(kind, return_counts=True) for kind in kinds.T], index.reshape(-1)


def _synapse_bits(part: Reach, tiles: Cuts, storage: Storage, known: Known) -> Counts:
    """Bits of one synapse in each tile. Tiles of equal lists, most of them, are counted once;
    ``known`` keeps the lists of axes cut alike."""
    form = storage.form
    shape = tuple(len(ranges) for ranges in tiles)
    if form is None:
        return np.zeros(shape, np.int64)
    if storage.sharing and part.kernel:
        stored = np.array([cut.stop - cut.start for cut in tiles[0]], np.int64)
        bits = stored * part.kernel * storage.bits
        words = -(-bits // form.word_bits) * form.word_bits
        return np.broadcast_to(words[:, None, None], shape).copy()
    by_axis = []
    for axis, ranges in enumerate(tiles):
        key = (id(part), axis, len(ranges))
        if key not in known:
            known[key] = _lists(part.axes[axis], ranges)
        by_axis.append(known[key])
    small = np.zeros(tuple(len(kinds) for kinds, _ in by_axis), np.int64)
    for place in np.ndindex(*small.shape):
        lists = [kinds[n] for (kinds, _), n in zip(by_axis, place, strict=True)]
        synapses = np.einsum("a,b,c->abc", *(reach for reach, _ in lists))
        often = np.einsum("a,b,c->abc", *(count for _, count in lists))
        small[place] = int((axon_bits(synapses, storage.bits, form) * often).sum())
    return np.asarray(small[np.ix_(*(index for _, index in by_axis))])


def _thresholds(layer: Uncut, tiles: Cuts) -> Counts:
    shape = tuple(len(ranges) for ranges in tiles)
    if layer.thresholds is None:
        return np.zeros(shape, np.int64)
    if (layer.thresholds == layer.thresholds.flat[0]).all():
        return np.ones(shape, np.int64)
    found = np.zeros(shape, np.int64)
    for place in np.ndindex(*shape):
        box = tuple(ranges[n] for ranges, n in zip(tiles, place, strict=True))
        found[place] = np.unique(layer.thresholds[box]).size
    return found


def _summed(values: Counts, tiles: Cuts) -> Counts:
    """The sum of an image's values in each tile."""
    for axis, ranges in enumerate(tiles):
        values = np.add.reduceat(values, [cut.start for cut in ranges], axis=axis)
    return values


def axons_in(layer: Uncut, tiles: Cuts) -> Counts:
    """Distinct sources that reach each tile; with the input where the host does not compute it."""
    total = np.zeros(tuple(len(ranges) for ranges in tiles), np.int64)
    for parts in layer.reaches.values():
        for sign, (channels, rows, columns) in tables(parts, tiles):
            sums = (table.sum(axis=0) for table in (channels, rows, columns))
            total = total + sign * np.einsum("a,b,c->abc", *sums)
    return total


def fan_in(layer: Uncut) -> int:
    """Most synapses of one neuron."""
    parts = [part for own in layer.reaches.values() for part in own]
    return sum(int(np.prod([mask.sum(axis=0).max() for mask in part.axes])) for part in parts)


def of_one_neuron(layer: Uncut, limits: Limits, storage: Storage) -> dict[str, Counts]:
    """As `needs` for tiles of one neuron each, int64 of the layer's image: the least there is."""
    axons = np.zeros(layer.image, np.int64)
    bits = np.zeros(layer.image, np.int64)
    alone = 0
    if storage.form is not None:
        alone = int(axon_bits(np.array([1]), storage.bits, storage.form)[0])
    for parts in layer.reaches.values():
        for sign, masks in overlaps(parts):
            sums = (mask.sum(axis=0) for mask in masks)
            axons += sign * np.einsum("a,b,c->abc", *sums)
        for part in parts:
            if storage.sharing and part.kernel:
                one = (slice(0, 1),)
                bits += _synapse_bits(part, (one, one, one), storage, {})
            else:
                lines = (mask.sum(axis=0) for mask in part.axes)
                bits += alone * np.einsum("a,b,c->abc", *lines)
    found = {
        "neurons_per_core": np.ones(layer.image, np.int64),
        "axons_in": axons,
        "axons_out": layer.targets,
        "thresholds_per_core": np.full(layer.image, layer.thresholds is not None, np.int64),
        **_of_neurons(layer, limits, axons),
    }
    return {**found, "syn_bits_per_core": bits} if storage.form is not None else found


def least_bits(layer: Uncut, storage: Storage) -> int:
    """Bits that the synapses take up at the very least, without headers and rests of words."""
    form = storage.form
    if form is None:
        return 0
    total = 0
    for parts in layer.reaches.values():
        for part in parts:
            if not (storage.sharing and part.kernel):
                synapses = math.prod(int(np.count_nonzero(mask)) for mask in part.axes)
                total += synapses * (storage.bits + form.idx_bits)
    return total


def _of_neurons(layer: Uncut, limits: Limits, like: Counts) -> dict[str, Counts]:
    """Limits of single neurons, the same for every tile."""
    found = {}
    if limits.fan_in is not None:
        found["fan_in"] = np.full_like(like, fan_in(layer))
    if limits.targets_per_neuron is not None:
        found["targets_per_neuron"] = np.full_like(like, layer.targets.max(initial=0))
    return found


def needs(
    layer: Uncut,
    tiles: Cuts,
    limits: Limits,
    storage: Storage,
    known: Known | None = None,
) -> dict[str, Counts]:
    """What each tile needs, int64 (channel ranges, row ranges, column ranges) by limit.

    Synapse memory is there when the chip's form of lists is known. ``known``: what was worked out
    for other even cuts of this layer; it is added to.
    """
    known = {} if known is None else known
    lengths = ([cut.stop - cut.start for cut in ranges] for ranges in tiles)
    found = {
        "neurons_per_core": np.einsum("a,b,c->abc", *(np.array(n, np.int64) for n in lengths)),
        "axons_in": axons_in(layer, tiles),
        "axons_out": _summed(layer.targets, tiles),
        "thresholds_per_core": _thresholds(layer, tiles),
    }
    if storage.form is not None:
        parts = [part for own in layer.reaches.values() for part in own]
        bits = (_synapse_bits(part, tiles, storage, known) for part in parts)
        found["syn_bits_per_core"] = sum(bits, np.zeros_like(found["axons_in"]))
    return {**found, **_of_neurons(layer, limits, found["axons_in"])}
