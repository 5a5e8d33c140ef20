"""How many synapses a spike meets: exact fan-outs, synaptic operations, and dense MACs.

The fan-out of a source element is the number of distinct neurons that a stored synapse leads to:
padding has none, borders have fewer. Pools around a linear map merge with it into one kernel, so
an element that reaches a neuron along two paths counts it once. A merged synapse is non-zero when
any of its paths has a non-zero weight. An identity has fan-out 1. Delays move what arrives to a
later step and change nothing else.

What arrives is an addition (``synops``) when it is a spike or when nothing is multiplied, and a
multiply-accumulate (``mac``) when a graded value meets a weight: Davies et al., IEEE Micro 38(1),
2018, for the word; Yik et al., arXiv:2304.04640, for the counting rule of zeros and borders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .layers import (
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
    Shape,
    SumPool,
    Synapse,
    Weighted,
)
from .linear import through
from .neurons import Spiking, Sum
from .shapes import shape_after, window_count

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
_TRIAL_BATCH = 64

_Windows = Dense | Conv | SumPool | AvgPool
"""Operations whose outputs see windows of an image; a dense map sees all of it."""


def _taps(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Mask:
    """Along one axis, which tap of which window holds an element: (taps, elements, windows)."""
    windows = window_count(size, kernel, stride, padding, dilation)
    tap = np.arange(kernel)[:, None, None] * dilation
    element = np.arange(size)[None, :, None] + padding
    hit: Mask = np.equal(element, np.arange(windows)[None, None, :] * stride + tap)
    return hit


def _axis_reach(chain: Sequence[_Windows], axis: int, size: int) -> Mask:
    """Along one axis (0 rows, 1 columns), through which taps of the weighted map an element
    reaches each target: (elements, targets, taps). Pools only: one tap.
    """
    reach: Mask = np.eye(size, dtype=bool)[:, :, None]
    for operation in chain:
        if isinstance(operation, Dense):
            reach = reach.transpose(0, 2, 1)  # every position is a tap of the only target
            continue
        if isinstance(operation, Conv):
            kernel, dilation = operation.weight.shape[2 + axis], operation.dilation[axis]
        else:
            kernel, dilation = operation.kernel[axis], 1
        taps = _taps(
            reach.shape[1], kernel, operation.stride[axis], operation.padding[axis], dilation
        )
        if not isinstance(operation, Conv):
            taps = np.asarray(taps.any(axis=0))[None]
        paths = np.einsum("epa,kpt->etak", reach.astype(np.int64), taps.astype(np.int64))
        reach = paths.reshape(*paths.shape[:2], -1).astype(bool)
    return reach


def _patterns(reach: Mask) -> tuple[Mask, Counts]:
    """The distinct sets of taps (U, taps), and for each element how many targets it reaches
    through each (elements, U).
    """
    elements, targets, taps = reach.shape
    patterns, index = np.unique(reach.reshape(-1, taps), axis=0, return_inverse=True)
    index = index.reshape(elements, targets)
    count = [np.count_nonzero(index == u, axis=1) for u in range(len(patterns))]
    return patterns, np.stack(count, axis=1).astype(np.int64)


def _support(values: NDArray[np.float32], nonzero: bool) -> NDArray[np.float32]:
    """1 for every entry of a weight that counts as a synapse, else 0."""
    return np.asarray(values != 0, np.float32) if nonzero else np.ones_like(values)


def _ones(synapse: Synapse, nonzero: bool) -> Synapse:
    """A synapse with ones in the place of its weights."""

    def ones(operation: Operation) -> Operation:
        if isinstance(operation, Scale):
            return replace(operation, scale=_support(operation.scale, nonzero))
        if isinstance(operation, Weighted):
            return replace(operation, weight=_support(operation.weight, nonzero), bias=None)
        return operation

    return replace(synapse, operations=tuple(map(ones, synapse.operations)))


def _by_trial(synapse: Synapse, shape: Shape, nonzero: bool) -> Counts:
    """Fan-outs by sending each element alone through the chain; for several weighted maps in a
    row and for scaled pools, which no closed form covers.
    """
    positive = _ones(synapse, nonzero)
    size = int(np.prod(shape))
    counts = np.zeros(size, np.int64)
    for start in range(0, size, _TRIAL_BATCH):
        stop = min(start + _TRIAL_BATCH, size)
        alone = np.zeros((stop - start, size))
        alone[np.arange(stop - start), np.arange(start, stop)] = 1.0
        reached = through(positive, alone.reshape(-1, *shape)) > 0
        counts[start:stop] = np.count_nonzero(reached.reshape(stop - start, -1), axis=1)
    return counts.reshape(shape)


def _by_axes(chain: Sequence[_Windows], image: Shape, nonzero: bool) -> Counts:
    """Fan-outs of a chain with one weighted map at most: along each axis the windows that hold an
    element, multiplied over the axes, weighted with the kernel's support.
    """
    channels, height, width = (*image[:1], *(1, 1, *image[1:])[-2:])
    rows, columns = _axis_reach(chain, 0, height), _axis_reach(chain, 1, width)
    groups, support = channels, np.ones((channels, 1, 1, 1), bool)
    for operation in chain:
        if isinstance(operation, Dense | Conv):
            groups = operation.groups if isinstance(operation, Conv) else 1
            support = _support(operation.weight, nonzero).astype(bool)
            support = support.reshape(len(support), -1, rows.shape[2], columns.shape[2])
    row_sets, row_count = _patterns(rows)
    column_sets, column_count = _patterns(columns)
    meets = np.zeros((channels, len(row_sets), len(column_sets)), np.int64)
    for u, taps in enumerate(row_sets):
        for v, across in enumerate(column_sets):
            hit = support[:, :, taps][:, :, :, across].any(axis=(2, 3))
            meets[:, u, v] = hit.reshape(groups, -1, hit.shape[1]).sum(axis=1).reshape(-1)
    return np.asarray(row_count @ meets @ column_count.T)


def fan_out(synapse: Synapse, shape: Shape, nonzero: bool = False) -> Counts:
    """Stored synapses of each source element, int64 of the source's ``shape``.

    ``nonzero`` counts only those whose weight is not zero.
    """
    chain: list[_Windows] = []
    image = shape
    joined = False  # axes joined behind a window: only a dense map still sees an image in them
    by_trial = len(synapse.weighted) > 1
    for operation in synapse.operations:
        if isinstance(operation, Scale):
            by_trial = True
        elif isinstance(operation, Flatten):
            joined = joined or bool(chain)
            image = image if chain else shape_after(operation, image)
        elif not isinstance(operation, Delay):
            by_trial = by_trial or (joined and not isinstance(operation, Dense))
            chain.append(operation.as_conv() if isinstance(operation, Conv1d) else operation)
    if not chain:  # every element reaches its own neuron, unless a scale is zero
        reached = through(_ones(synapse, nonzero), np.ones((1, *shape)))
        return reached.astype(np.int64).reshape(shape)
    if by_trial:
        return _by_trial(synapse, shape, nonzero)
    return _by_axes(chain, image, nonzero).reshape(shape)


def _dense(synapse: Synapse, shape: Shape) -> int:
    """Multiply-accumulates of the weighted maps on a full frame, each on its own input."""
    total = 0
    for operation in synapse.operations:
        if isinstance(operation, Dense):
            total += operation.weight.size
        elif isinstance(operation, Scale):
            total += math.prod(shape)
        elif isinstance(operation, Conv | Conv1d):
            conv = operation if isinstance(operation, Conv) else operation.as_conv()
            per_axis = [
                int(_taps(n, k, s, p, d).sum())
                for n, k, s, p, d in zip(
                    (1, *shape[1:])[-2:],
                    conv.weight.shape[2:],
                    conv.stride,
                    conv.padding,
                    conv.dilation,
                    strict=True,
                )
            ]
            pairs = conv.weight.shape[0] * conv.weight.shape[1]
            total += pairs * per_axis[0] * per_axis[1]
        shape = shape_after(operation, shape)
    return total


def dense_macs(network: Network) -> dict[str, int]:
    """MACs of each layer in one pass of the equivalent ANN: every weight on every element it
    meets, padding left out. Pooling, residual additions and biases multiply nothing.
    """
    return {
        layer.name: sum(_dense(s, network.shape_of(s.source)) for s in layer.synapses)
        for layer in network.layers
    }


def is_graded(network: Network, source: str) -> bool:
    """Whether a source emits values other than 0 and 1: neurons that do not fire, or an input of
    levels."""
    if source == network.input:
        contract = network.contract
        binary = contract.input_coding == "spikes" or (
            contract.input_coding == "events" and contract.input_levels == 1
        )
        return not binary
    return not isinstance(network.layer(source).neuron, Spiking)


@dataclass(frozen=True, eq=False)
class Operations:
    """What a layer does at each step, all samples together; four int64 (T,).

    synops: additions, one per arriving spike and stored synapse; synops_eff: only non-zero weights.
    mac_dense: multiply-accumulates on graded sources, zeros included; mac_nz: only where input and
    weight are not zero. Behind a pool the zeros of a graded source are not known: there mac_nz
    equals mac_dense.
    """

    synops: Counts
    synops_eff: Counts
    mac_dense: Counts
    mac_nz: Counts

    def __add__(self, other: Operations) -> Operations:
        """Both together, step by step."""
        return Operations(
            self.synops + other.synops,
            self.synops_eff + other.synops_eff,
            self.mac_dense + other.mac_dense,
            self.mac_nz + other.mac_nz,
        )


@dataclass(frozen=True, eq=False)
class SynapseCount:
    """One synapse's share: the layer it enters, its source, the stored fan-out of each source
    element (int64, the source's shape) and its operations.
    """

    layer: str
    source: str
    graded: bool
    fan_out: Counts
    operations: Operations


def _delayed(network: Network, layer: Layer, synapse: Synapse, emitted: Operations) -> Operations:
    """Moved to the step of arrival."""
    steps = len(emitted.synops)
    late = min(network.lateness(layer, synapse), steps)

    def move(counts: Counts) -> Counts:
        return np.concatenate([np.zeros(late, np.int64), counts[: steps - late]])

    return Operations(
        move(emitted.synops),
        move(emitted.synops_eff),
        move(emitted.mac_dense),
        move(emitted.mac_nz),
    )


def _multiplied(synapse: Synapse, shape: Shape, fired: Counts, samples: int) -> Operations:
    """A graded source through weights, by the step of emission; ``fired`` (T, N)."""
    none = np.zeros(len(fired), np.int64)
    every = np.full(len(fired), samples * _dense(synapse, shape), np.int64)
    first = next(i for i, op in enumerate(synapse.operations) if isinstance(op, Weighted))
    head = replace(synapse, operations=synapse.operations[: first + 1])
    known = all(isinstance(op, Flatten | Delay) for op in head.operations[:-1])
    if not known or len(synapse.weighted) > 1:
        return Operations(none, none, every, every)
    return Operations(none, none, every, fired @ fan_out(head, shape, True).reshape(-1))


def _adds(network: Network, layer: Layer, synapse: Synapse) -> bool:
    """Whether what arrives by a synapse is added: not multiplied, nor left to the map behind."""
    if is_graded(network, synapse.source) and synapse.weighted:
        return False
    # A branch that meets others before a linear map: the map behind pays for its terms.
    merges = isinstance(layer.neuron, Sum) and layer.name != network.output
    return not (merges and all(isinstance(op, Flatten | Delay) for op in synapse.operations))


def _operations(
    network: Network, layer: Layer, synapse: Synapse, fired: Counts, samples: int
) -> Operations:
    """One synapse's operations, by the step of emission; ``fired`` (T, N)."""
    shape = network.shape_of(synapse.source)
    none = np.zeros(len(fired), np.int64)
    if is_graded(network, synapse.source) and synapse.weighted:
        return _multiplied(synapse, shape, fired, samples)
    if not _adds(network, layer, synapse):
        return Operations(none, none, none, none)
    stored, nonzero = (fan_out(synapse, shape, kind).reshape(-1) for kind in (False, True))
    return Operations(fired @ stored, fired @ nonzero, none, none)


@dataclass(frozen=True, eq=False)
class Additions:
    """What the spikes of a source cost along one synapse: ``fan_out`` additions each (int64, the
    source's shape), ``late`` steps after the spike."""

    source: str
    fan_out: Counts
    late: int


def additions(network: Network) -> list[Additions]:
    """Every synapse whose arrivals are added, in the order of layers and synapses.

    Spikes times these are the ``synops`` of `synaptic_operations`: those that leave within T steps
    and arrive within them too.
    """
    return [
        Additions(
            synapse.source,
            fan_out(synapse, network.shape_of(synapse.source)),
            network.lateness(layer, synapse),
        )
        for layer in network.layers
        for synapse in layer.synapses
        if _adds(network, layer, synapse)
    ]


def synapse_counts(
    network: Network, fired: Mapping[str, Counts], samples: int = 1
) -> list[SynapseCount]:
    """Operations of every synapse of a run, in the order of layers and synapses.

    ``fired``: `Trace.fired`, int64 (T, *shape) for the input and every layer, over ``samples``
    samples. Raises RequestError (E_TRACE) when a population is missing or has another shape.
    """
    steps = {len(counts) for counts in fired.values()}
    for name in [network.input, *network.by_name]:
        expected = network.shape_of(name)
        found = fired[name].shape[1:] if name in fired else None
        if found != expected or len(steps) != 1:
            raise RequestError(
                "E_TRACE",
                f"the trace's counts of '{name}' have the shape "
                f"{'(missing)' if found is None else list(fired[name].shape)}; expected "
                f"[T, {', '.join(map(str, expected))}] with one T for all",
            )
    counts = []
    for layer in network.layers:
        for synapse in layer.synapses:
            source = synapse.source
            sent = fired[source].reshape(len(fired[source]), -1).astype(np.int64)
            emitted = _operations(network, layer, synapse, sent, samples)
            counts.append(
                SynapseCount(
                    layer.name,
                    source,
                    is_graded(network, source),
                    fan_out(synapse, network.shape_of(source)),
                    _delayed(network, layer, synapse, emitted),
                )
            )
    return counts


def synaptic_operations(
    network: Network, fired: Mapping[str, Counts], samples: int = 1
) -> dict[str, Operations]:
    """Operations per layer and step of a run; ``fired`` and ``samples`` as `synapse_counts`."""
    none = np.zeros(len(fired[network.input]) if network.input in fired else 0, np.int64)
    total = {layer.name: Operations(none, none, none, none) for layer in network.layers}
    for count in synapse_counts(network, fired, samples):
        total[count.layer] = total[count.layer] + count.operations
    return total
