"""Post-training quantisation of a float network to Loihi integers, 8 to 2 bits.

Per layer one scale s, or one for each channel (integer weight units per float unit); the integer
network decides ``64*sum(w_int*x) + b_int > 64*vth`` with ``w_int ~ w*s``, ``vth ~ threshold*s``.
All synapses that meet in a neuron share its scale. Caps on s exclude every wrap and saturation of
the chip for any input. A network whose weights lie on a lattice already keeps them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..hardware.chip_file import load_chip
from ..network.check import check
from ..network.contract import Integer
from ..network.dynamics import WEIGHT_SHIFT
from ..network.layers import Conv, Dense, Layer, Network, Operation
from ..network.loihi import BIAS_EXPONENT_MAX, MANTISSA_MAX, THRESHOLD_MAX
from ..network.neurons import IF, LIF, CubaLIF, Resetting, Sum
from ..network.scale_caps import BIAS_MAX, bias_reach, sums_of
from ..network.scales import against, step_of, threshold_units, whole_weights
from ..network.shared_scales import core_groups
from ..network.support import refuse_unsupported
from .flips import Calibration, Teacher
from .layer_scales import Errors, Found, Sharing, at_scale, find_scale, has_channels, maps
from .loihi_form import loihi_form
from .quantisable import TABLE, Settings, check_contract, check_layer, refused

Wide = NDArray[np.float64]

LATE_BIAS = (
    "its biases go past the synaptic current, which has a memory: they are the mean over T steps "
    "of what would have built up"
)


@dataclass(frozen=True)
class LayerScale:
    """How one layer became integers.

    ``scale``: for all its channels, or one for each. ``cap``: the largest that the chip allows its
    tightest channel, and why. ``weights``, ``whole``: range of the float weights and of the whole
    ones. ``clipped`` of ``count`` weights; ``thresholds``: how many different ones. ``kept``: the
    weights lay on a lattice already and were not rounded. ``shift``: bits that the sums are shifted
    to the right, which they lose nothing by: all weights are multiples of it.
    """

    layer: str
    where: Literal["chip", "host"]
    scale: float | tuple[float, ...]
    cap: float
    cap_reason: str
    weights: tuple[float, float]
    whole: tuple[float, float]
    count: int
    clipped: int
    relative_error: float
    thresholds: int
    kept: bool = False
    shift: int = 0
    remark: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def _bias_exponent(largest: float) -> int | None:
    """Smallest exponent whose mantissa holds a bias of this size (membrane units)."""
    for exponent in range(BIAS_EXPONENT_MAX + 1):
        if np.rint(largest / 2**exponent) <= MANTISSA_MAX:
            return exponent
    return None


def _across(scale: Wide, layer: Layer) -> Wide:
    """A scale in a shape that multiplies what a layer's neurons have, (C, 1, 1)."""
    return scale.reshape(-1, *(1,) * (len(layer.shape) - 1)) if scale.ndim else scale


def _integer_layer(
    layer: Layer, scale: Wide, bits: int, steps: int, shift: int
) -> tuple[Layer, int]:
    """(layer in integers, bias exponent); ``scale`` () or (C,), of sums before their shift."""
    reach = bias_reach(layer, steps) * (1 << WEIGHT_SHIFT) / 2**shift
    biases = np.zeros(layer.shape[0])
    for op in maps(layer):
        if op.bias is not None and len(op.bias) == len(biases):
            biases += abs(op.bias).astype(np.float64)
        elif op.bias is not None:
            biases += float(abs(op.bias).max(initial=0.0))
    largest = float((biases * scale).max()) * reach
    exponent = _bias_exponent(largest)
    if exponent is None:
        raise refused(layer, f"a bias of {largest:.0f} is above 4095 * 2^7; the cap failed")
    unit = 2.0**exponent

    def whole(op: Operation) -> Operation:
        if not isinstance(op, Dense | Conv):
            return op
        weight = whole_weights(op.weight, scale, bits).astype(np.float32)
        if op.bias is None:
            return replace(op, weight=weight)
        bias = np.rint(op.bias.astype(np.float64) * scale * reach / unit) * unit / 64
        return replace(op, weight=weight, bias=bias.astype(np.float32))

    synapses = tuple(
        replace(s, operations=tuple(whole(op) for op in s.operations)) for s in layer.synapses
    )
    neuron = layer.neuron
    if isinstance(neuron, Resetting):
        threshold = threshold_units(neuron.threshold, _across(scale, layer)).astype(np.float32)
        neuron = replace(neuron, threshold=threshold)
    return replace(layer, synapses=synapses, neuron=neuron), exponent


def _facts(layer: Layer, integer: Layer, found: Found, bits: int) -> LayerScale:
    weights, whole = maps(layer), maps(integer)
    scale, step = found.scale, step_of(bits)
    errors, norms, clipped = 0.0, 0.0, 0
    for op, kept, back in zip(weights, whole, at_scale(layer, scale, bits), strict=True):
        errors += float(((back - op.weight) ** 2).sum())
        norms += float((op.weight.astype(np.float64) ** 2).sum())
        clipped += int((2 * abs(op.weight * against(scale, op.weight) - kept.weight) > step).sum())
    late = isinstance(layer.neuron, CubaLIF) and any(
        op.bias is not None and op.bias.any() for op in weights
    )
    return LayerScale(
        layer.name,
        "chip",
        float(scale) if scale.ndim == 0 else tuple(scale.tolist()),
        found.cap,
        found.cap_reason,
        (
            min(float(op.weight.min()) for op in weights),
            max(float(op.weight.max()) for op in weights),
        ),
        (
            min(float(op.weight.min()) for op in whole),
            max(float(op.weight.max()) for op in whole),
        ),
        sum(op.weight.size for op in weights),
        clipped,
        float(np.sqrt(errors / norms)) if norms else 0.0,
        _distinct(integer),
        found.kept,
        found.shift,
        LATE_BIAS if late else "",
    )


def _distinct(layer: Layer) -> int:
    if not isinstance(layer.neuron, Resetting):
        return 0
    return len(np.unique(layer.neuron.threshold))


def _host_layer(network: Network, layer: Layer) -> tuple[Layer, int, LayerScale]:
    """The first layer: float weights stay with the host; the largest scale that never clips."""
    sums = sums_of(network, layer)
    largest = float(max(part.max(initial=0.0) for part in sums))
    room = BIAS_MAX / (1 << WEIGHT_SHIFT)
    if not isinstance(layer.neuron, LIF | IF):
        raise TypeError(f"{type(layer.neuron).__name__} has no current from the host")
    caps = {
        "a bias is at most 4095 * 2^7": room / largest if largest else np.inf,
        "a threshold is at most 131071": THRESHOLD_MAX / float(layer.neuron.threshold.max()),
    }
    reason = min(caps, key=lambda name: caps[name])
    scale = int(caps[reason])
    if scale < 1:
        raise refused(layer, f"its current of up to {largest:.1f} is beyond the bias field")
    threshold = threshold_units(layer.neuron.threshold, scale).astype(np.float32)
    integer = replace(layer, neuron=replace(layer.neuron, threshold=threshold))
    weights = [op.weight for op in maps(layer)]
    ends = (
        min((float(w.min()) for w in weights), default=0.0),
        max((float(w.max()) for w in weights), default=0.0),
    )
    count = sum(w.size for w in weights)
    facts = LayerScale(
        layer.name, "host", scale, caps[reason], reason, ends, ends, count, 0, 0.0,
        _distinct(integer),
    )  # fmt: skip
    return integer, scale, facts


def _sharing(layer: Layer, settings: Settings) -> Sharing | None:
    """How many thresholds a core of the chip holds, and which channels lie on one."""
    limits = load_chip(settings.chip).limits
    if limits.neurons_per_core is None or limits.thresholds_per_core is None:
        return None
    return Sharing(core_groups(layer.shape, limits.neurons_per_core), limits.thresholds_per_core)


def _shift_room(layer: Layer, bits: int) -> int:
    """Bits that a read-out's sums can lose on the right: its weights are multiples of so much.

    Lava has an exponent for matrices, not for convolutions.
    """
    if isinstance(layer.neuron, Sum) and all(isinstance(op, Dense) for op in maps(layer)):
        return 9 - bits
    return 0


def _chip_layer(
    network: Network, layer: Layer, settings: Settings, teacher: Teacher | None
) -> tuple[Layer, int, LayerScale]:
    bits, steps = settings.weight_bits, network.contract.steps
    room = _shift_room(layer, bits)
    by_channel = (
        settings.thresholds == "channel"
        and isinstance(layer.neuron, Resetting)
        and has_channels(layer)
    )
    errors: Errors | None = None
    if teacher is not None:
        judge = teacher

        def changed(scale: Wide) -> Wide:
            integer, _ = _integer_layer(layer, scale, bits, steps, room)
            return judge.errors(integer, _across(scale, layer), room)

        errors = changed
    sharing = _sharing(layer, settings) if by_channel else None
    found = find_scale(network, layer, bits, by_channel, sharing, errors, room)
    integer, exponent = _integer_layer(layer, found.scale, bits, steps, found.shift)
    return integer, exponent, _facts(layer, integer, found, bits)


def quantise(
    network: Network, settings: Settings | None = None, calibration: Calibration | None = None
) -> tuple[Network, tuple[LayerScale, ...]]:
    """A float network to Loihi integers, legal by `check` at level ``integer``.

    Its sums are dissolved and its pools and scales have weights (`loihi_form`). The same network,
    settings and inputs give the same integers. ``calibration``: what scaling ``flips`` counts on.
    Raises RequestError (E_UNSUPPORTED, E_RANGE) naming the layer and what the chip cannot hold,
    E_DATA for scaling ``flips`` without inputs.
    """
    settings = settings or Settings()
    check_contract(network, settings)
    refuse_unsupported(network, "target 'lava' cannot hold", TABLE)
    if settings.scaling == "flips" and calibration is None:
        raise RequestError(
            "E_DATA",
            "scaling flips counts changed spikes on training inputs, and there are none: scaling "
            "mse needs no data",
        )
    with_host = settings.first_layer == "host" and network.contract.input_coding == "direct"
    form = loihi_form(network, with_host)
    hosted = {
        layer.name
        for layer in form.layers
        if with_host and form.input in {synapse.source for synapse in layer.synapses}
    }
    for layer in form.layers:
        check_layer(form, layer, layer.name in hosted)
    teacher = Teacher(form, calibration) if calibration and settings.scaling == "flips" else None
    layers: list[Layer] = []
    facts: list[LayerScale] = []
    exponents: dict[str, int] = {}
    host: dict[str, int] = {}
    shifts: dict[str, int] = {}
    for layer in form.layers:
        if layer.name in hosted:
            integer, host[layer.name], fact = _host_layer(form, layer)
            exponents[layer.name] = BIAS_EXPONENT_MAX
        else:
            integer, exponents[layer.name], fact = _chip_layer(form, layer, settings, teacher)
            if fact.shift:
                shifts |= {op.name: -fact.shift for op in maps(integer)}
        layers.append(integer)
        facts.append(fact)
    arithmetic = Integer(settings.weight_bits, exponents, host, shifts)
    contract = form.contract.with_arithmetic(arithmetic)
    quantised = replace(form, layers=tuple(layers), contract=contract)
    check(quantised, "integer")
    return quantised, tuple(facts)
