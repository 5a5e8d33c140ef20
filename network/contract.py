"""The contract: what a NIR graph leaves open and a spike depends on.

A contract travels as one JSON text in the graph's metadata, with a hash of the graph it was
written for. It is never guessed: a file without one is read only under a named semantics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..files import canonical_json
from .plain import Between, parse

Compare = Literal["gt", "ge"]
Reset = Literal["value", "subtract", "none"]
ResetTime = Literal["same_step", "next_after_decay", "fire_first"]
InputCoding = Literal["direct", "spikes", "events"]

VERSION = 1

Count = Annotated[int, Between(1, 1_000_000)]
Positive = Annotated[float, Between(2.0**-126, 1e9)]
"""Above 0, and no float32 takes it for 0."""
Exponent = Annotated[int, Between(-256, 256)]


@dataclass(frozen=True)
class Float32:
    """Rounded multiply, rounded add, in float32; sums in any order."""

    kind: Literal["float32"] = "float32"


@dataclass(frozen=True)
class Grid:
    """float32 whose sums are exact: per layer, weights are multiples of 2^-weight_exponents and
    currents of 2^-product_exponents."""

    weight_exponents: Mapping[str, Exponent]
    product_exponents: Mapping[str, Exponent]
    kind: Literal["grid"] = "grid"


@dataclass(frozen=True)
class Integer:
    """Loihi integers. ``bias_exponents``: per layer, its biases are multiples of 2^e / 64.

    ``host_scale``: a layer listed here gets its current from the host, computed in float32 from
    the input and written as one bias per neuron, ``rint(c * scale * 64 / 2^e) << e``.
    ``weight_exponents``: per operation, its finished sum is shifted left by so many bits, or right
    (floor) for a negative exponent; 0 where none is named.
    """

    weight_bits: Annotated[int, Between(1, 8)]
    bias_exponents: Mapping[str, Exponent]
    host_scale: Mapping[str, Annotated[int, Between(1, 2**31)]] = field(default_factory=dict)
    weight_exponents: Mapping[str, Annotated[int, Between(-24, 8)]] = field(default_factory=dict)
    kind: Literal["integer"] = "integer"


Arithmetic = Float32 | Grid | Integer


@dataclass(frozen=True)
class Contract:
    """How a network runs, field by field.

    ``dt`` seconds per step; ``steps`` the T it was trained at; ``integrator`` euler: decay is
    1 - dt/tau; ``compare`` gt fires at v > threshold, ge at v >= threshold; ``reset`` value sets
    v to v_reset, subtract takes the threshold off; ``reset_time`` same_step: in the step of the
    spike, next_after_decay: subtracted one step later, behind the decay; ``input_scale`` what one
    level of a stored input is worth (a power of two) and ``input_levels`` the largest level;
    ``input_coding`` direct: the same frame at every step. `REFUSED` says which values are known
    and not run; the further fields have one value that is run: one spike per step, no least
    membrane (``v_min``), the synaptic current before the membrane, no refractory steps, biases of
    recurrent synapses as of all others and from the first step on, state reset for every sample.
    """

    steps: Count
    dt: Positive = 1e-4
    integrator: Literal["euler"] = "euler"
    compare: Compare = "gt"
    reset: Reset = "value"
    reset_time: ResetTime = "same_step"
    spikes_per_step: Literal["one", "many"] = "one"
    v_min: Literal["none", "minus_threshold", "zero"] = "none"
    cuba_order: Literal["current_first", "membrane_first"] = "current_first"
    refractory: Annotated[int, Between(0, 1_000_000)] = 0
    recurrent_bias: Literal["kept", "dropped"] = "kept"
    first_step: Literal["counts", "lost"] = "counts"
    keep: Literal["sample", "step", "forever"] = "sample"
    input_coding: InputCoding = "direct"
    input_scale: Positive = 1.0
    input_levels: Count = 1
    readout: Literal["current_mean"] = "current_mean"
    arithmetic: Arithmetic = field(default_factory=Float32)
    producer: str = ""

    @property
    def late_reset(self) -> bool:
        """Whether a spike's threshold is taken off one step later, behind the decay."""
        return self.reset_time == "next_after_decay"

    def refused(self) -> str:
        """Why this contract cannot be run here; empty when it can."""
        if self.refractory:
            return f"refractory periods ({self.refractory} steps) are not run yet"
        if self.late_reset and self.reset != "subtract":
            return "a reset one step later is run by subtraction only"
        found = ((name, getattr(self, name)) for name, _ in REFUSED)
        return next((REFUSED[pair] for pair in found if pair in REFUSED), "")

    def frames(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Stored inputs to what enters the network.

        Integers are levels and are multiplied by ``input_scale``; floats are taken as they are,
        but where sums are exact they must be what levels give: nothing is certified beyond them.
        Raises RequestError (E_INPUT).
        """
        if x.dtype.kind not in "iuf":
            raise RequestError("E_INPUT", f"the input has dtype {x.dtype}; expected numbers")
        scale = np.float32(self.input_scale)
        if x.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
                frames = x.astype(np.float32)
            if not np.isfinite(frames).all():
                raise RequestError("E_INPUT", "the input holds a number that is not finite")
            if isinstance(self.arithmetic, Float32):
                return frames
            levels = frames / scale
            if (levels != np.rint(levels)).any():
                raise RequestError(
                    "E_INPUT",
                    f"the input holds numbers that are no multiples of {self.input_scale}; in "
                    f"{self.arithmetic.kind} arithmetic sums are exact for those only",
                )
        else:
            frames, levels = x.astype(np.float32) * scale, x
        if levels.size and (levels.min() < 0 or levels.max() > self.input_levels):
            raise RequestError(
                "E_INPUT",
                f"the input holds levels from {levels.min()} to {levels.max()}, the contract says "
                f"0 to {self.input_levels}",
            )
        return frames

    def with_arithmetic(self, arithmetic: Arithmetic) -> Contract:
        """The same contract in another arithmetic."""
        return replace(self, arithmetic=arithmetic)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"contract": VERSION, **asdict(self)}

    def to_json(self) -> str:
        """Canonical JSON."""
        return canonical_json(self.to_dict())

    @staticmethod
    def from_dict(data: Any) -> Contract:
        """Read a contract from plain values; RequestError (E_CONTRACT) names what is wrong."""
        if not isinstance(data, dict) or data.get("contract") != VERSION:
            found = data.get("contract") if isinstance(data, dict) else type(data).__name__
            raise RequestError(
                "E_CONTRACT", f"the contract's version is {found!r}, this release reads {VERSION}"
            )
        fields = {key: value for key, value in data.items() if key != "contract"}
        return parse(Contract, fields, "the contract")


REFUSED: Mapping[tuple[str, str], str] = {
    ("reset", "none"): "neurons without a reset are not run yet",
    ("reset_time", "fire_first"): "firing on the membrane of the last step is not run yet",
    ("spikes_per_step", "many"): "several spikes of one neuron in one step are not run yet",
    ("v_min", "minus_threshold"): "a membrane clamped at minus the threshold is not run yet",
    ("v_min", "zero"): "a membrane clamped at zero is not run yet",
    ("cuba_order", "membrane_first"): "a membrane that takes the last step's synaptic current is "
    "not run yet",
    ("recurrent_bias", "dropped"): "dropping the biases of recurrent synapses is not run: it is a "
    "fault of an importer; write the network without them",
    ("first_step", "lost"): "biases of recurrent synapses that miss the first step are not run yet",
    ("keep", "step"): "a state that is cleared at every step is not run: it is a slip of callers",
    ("keep", "forever"): "a state that is kept between samples is not run yet",
}
"""Known values of the contract's fields that nothing runs, and why."""
