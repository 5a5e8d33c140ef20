"""The grid: weights on powers of two, so fine that little changes, so coarse that sums are exact.

Theorem: if every weight of a layer is a multiple of 2^-k, every input of 2^-kx, the bias of
2^-(k+kx) =: 2^-kappa, and the positive and the negative terms of every neuron each sum to at most
2^(24-kappa), then every float32 evaluation of the sum, in any order, gives its exact value: each
partial sum is a whole number of at most 2^24 grid steps. Winograd, FFT, TF32 and sums into which
the decayed membrane is fused are not evaluations of that kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .bounds import sums_first, term_sums
from .contract import Grid, Integer
from .layers import AvgPool, Layer, Network, Operation, SumPool, Synapse, Weighted
from .linear import through
from .neurons import Sum

Array = NDArray[np.float32]

SIGNIFICAND_BITS = 24
FINEST = 24
"""Largest weight exponent tried: finer than any float32 weight near 1."""


@dataclass(frozen=True)
class LayerCertificate:
    """What makes one layer's sums exact, or why they are not.

    ``fan_in``: least and most inputs of a neuron (borders). ``positive``, ``negative``: largest
    sum of the positive and of the negative terms of a neuron. ``bits``: log2 of the larger one in
    grid steps, of 24. ``problem``: empty when the certificate holds.
    """

    layer: str
    fan_in: tuple[int, int]
    largest_weight: float
    positive: float
    negative: float
    weight_exponent: int
    product_exponent: int
    bits: float
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def _power_of_two(value: float) -> int | None:
    """N with value = 2^n, else None."""
    mantissa, exponent = math.frexp(value)
    return exponent - 1 if mantissa == 0.5 else None


def _input_exponent(network: Network, synapse: Synapse, exponents: dict[str, int]) -> int:
    """kx: what reaches the weights of a synapse is a multiple of 2^-kx."""
    if synapse.source == network.input:
        power = _power_of_two(network.contract.input_scale)
        if power is None:
            raise RequestError(
                "E_GRID",
                f"the input scale {network.contract.input_scale} is not a power of two; train on "
                "inputs scaled by one (byte/256, not byte/255)",
            )
        exponent = -power
    else:
        source = network.layer(synapse.source)
        exponent = exponents[source.name] if isinstance(source.neuron, Sum) else 0
    for operation in synapse.operations:
        if isinstance(operation, AvgPool):
            power = _power_of_two(operation.kernel[0] * operation.kernel[1])
            if power is None:
                raise RequestError(
                    "E_GRID",
                    f"'{operation.name}' averages over {operation.kernel[0]}x"
                    f"{operation.kernel[1]} values, not a power of two; use a sum pool",
                )
            exponent += power
    return exponent


def _check_form(layer: Layer) -> None:
    for synapse in layer.synapses:
        weighted = synapse.weighted
        if len(weighted) > 1:
            names = "' and '".join(op.name for op in weighted)
            raise RequestError(
                "E_GRID",
                f"layer '{layer.name}': '{names}' follow each other without a neuron between; "
                "merge them into one linear map",
            )
        if weighted and any(
            isinstance(op, AvgPool)
            for op in synapse.operations[synapse.operations.index(weighted[0]) :]
        ):
            raise RequestError(
                "E_GRID",
                f"layer '{layer.name}': an average pool behind '{weighted[0].name}' takes its "
                "values off the grid; put the pool before it",
            )


def _numbers(operation: Weighted) -> dict[str, Array]:
    """Weights, scale and biases of an operation, by the names of its fields."""
    found = {name: getattr(operation, name, None) for name in ("weight", "scale", "bias")}
    return {name: values for name, values in found.items() if values is not None}


def _edited(operation: Weighted, edit: Callable[[str, Array], Array | None]) -> Weighted:
    """The operation with ``edit(name, values)`` in the place of each array."""
    edited: dict[str, Any] = {name: edit(name, x) for name, x in _numbers(operation).items()}
    return replace(operation, **edited)


def _fan_in(network: Network, layer: Layer) -> tuple[int, int]:
    total = np.zeros((1, *layer.shape))
    for synapse in layer.synapses:
        ones: list[Operation] = []
        for op in synapse.operations:
            if isinstance(op, Weighted):
                ones.append(
                    _edited(op, lambda name, x: None if name == "bias" else np.ones_like(x))
                )
            elif isinstance(op, AvgPool):
                ones.append(SumPool(op.name, op.kernel, op.stride, op.padding))
            else:
                ones.append(op)
        source = np.ones((1, *network.shape_of(synapse.source)))
        total = total + through(replace(synapse, operations=tuple(ones)), source)
    return int(total.min()), int(total.max())


def _exponents(network: Network, layer: Layer, k: int, known: dict[str, int]) -> int:
    """kappa: the finest exponent among a layer's products for weight exponent k."""
    found = [
        _input_exponent(network, synapse, known) + (k if synapse.weighted else 0)
        for synapse in layer.synapses
    ]
    return max(found, default=0)


def _rounded(values: Array, exponent: int) -> Array:
    steps = np.rint(values.astype(np.float64) * 2.0**exponent)
    return (steps / 2.0**exponent).astype(np.float32)


def _snapped(layer: Layer, k: int, kappa: int) -> Layer:
    def snap(operation: Operation) -> Operation:
        if not isinstance(operation, Weighted):
            return operation
        return _edited(operation, lambda name, x: _rounded(x, kappa if name == "bias" else k))

    synapses = tuple(
        replace(synapse, operations=tuple(snap(op) for op in synapse.operations))
        for synapse in layer.synapses
    )
    return replace(layer, synapses=synapses)


def _largest_sum(network: Network, layer: Layer) -> float:
    positive, negative = term_sums(network)[layer.name]
    return float(max(positive.max(initial=0.0), negative.max(initial=0.0)))


def _with_layer(network: Network, layer: Layer) -> Network:
    layers = tuple(layer if old.name == layer.name else old for old in network.layers)
    return replace(network, layers=layers)


def snap(network: Network) -> Network:
    """Round every layer's weights and biases to the finest grid on which its sums are exact.

    What neurons do with their sums, element by element, is rounded in one order everywhere and
    needs no grid. Returns the network with `Grid` arithmetic in its contract. Raises RequestError
    (E_GRID) for an input scale or an average pool that is not a power of two, for two linear maps
    in a row, for layers that membranes feed, and for sums that feed each other.
    """
    weight_exponents: dict[str, int] = {}
    product_exponents: dict[str, int] = {}
    for layer in sums_first(network):
        _check_form(layer)
        kx = _exponents(network, layer, 0, product_exponents)
        largest = _largest_sum(network, layer)
        room = SIGNIFICAND_BITS - kx - (math.log2(largest) if largest else 0.0)
        k = min(FINEST, math.floor(room) + 1)
        while True:
            kappa = _exponents(network, layer, k, product_exponents)
            candidate = _with_layer(network, _snapped(layer, k, kappa))
            if _largest_sum(candidate, layer) * 2.0**kappa <= 2**SIGNIFICAND_BITS:
                break
            k -= 1
            if k < -FINEST:
                raise RequestError(
                    "E_GRID", f"layer '{layer.name}': no grid makes its sums exact in float32"
                )
        network = candidate
        weight_exponents[layer.name], product_exponents[layer.name] = k, kappa
    grid = Grid(weight_exponents, product_exponents)
    return network.with_contract(network.contract.with_arithmetic(grid))


def _problem(layer: Layer, k: int, kappa: int, bits: float) -> str:
    if bits > SIGNIFICAND_BITS:
        return f"a sum needs {bits:.2f} bits, float32 has {SIGNIFICAND_BITS}"
    for synapse in layer.synapses:
        for op in synapse.weighted:
            for name, values in _numbers(op).items():
                exponent = kappa if name == "bias" else k
                # Not 2.0**exponent: a file may ask for one that no float has.
                steps = np.ldexp(values.astype(np.float64), exponent)
                off = np.argwhere((steps != np.rint(steps)) | ((steps == 0) & (values != 0)))
                if len(off):
                    return f"'{op.name}' {name}{off[0].tolist()} is not a multiple of 2^{-exponent}"
    return ""


def certificate(network: Network) -> tuple[LayerCertificate, ...]:
    """Recompute the certificate of a grid network from its own weights, layer by layer.

    Nothing but the exponents is taken from the file. An empty tuple: the arithmetic is no grid.
    Raises RequestError (E_GRID) where there can be none: as `bounds.sums_first`.
    """
    arithmetic = network.contract.arithmetic
    if not isinstance(arithmetic, Grid):
        return ()
    sums = term_sums(network)
    known: dict[str, int] = {}
    found: dict[str, LayerCertificate] = {}
    for layer in sums_first(network):
        positive, negative = (float(part.max(initial=0.0)) for part in sums[layer.name])
        k = arithmetic.weight_exponents.get(layer.name, 0)
        largest = max(positive, negative)
        weights = [
            abs(values).max(initial=0.0)
            for synapse in layer.synapses
            for op in synapse.weighted
            for name, values in _numbers(op).items()
            if name != "bias"
        ]
        try:
            _check_form(layer)
            kappa = _exponents(network, layer, k, known)
            bits = math.log2(largest) + kappa if largest else 0.0
            problem = _problem(layer, k, kappa, bits)
            stated = arithmetic.product_exponents.get(layer.name)
            if not problem and stated != kappa:
                problem = f"the contract says product exponent {stated}, its parts give {kappa}"
        except RequestError as error:
            kappa, bits, problem = 0, math.inf, error.message
        known[layer.name] = kappa
        found[layer.name] = LayerCertificate(
            layer.name,
            _fan_in(network, layer),
            float(max(weights, default=0.0)),
            positive,
            negative,
            k,
            kappa,
            bits,
            problem,
        )
    return tuple(found[layer.name] for layer in network.layers)


def exact_sums(network: Network) -> bool:
    """Whether equality may be demanded in every bit: integer, or a certificate that holds."""
    if isinstance(network.contract.arithmetic, Integer):
        return True
    layers = certificate(network)
    return bool(layers) and not any(layer.problem for layer in layers)
