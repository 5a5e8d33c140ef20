"""The contract: what a NIR graph leaves open and a spike depends on.

A contract travels as one JSON text in the graph's metadata, with a hash of the graph it was
written for. It is never guessed: a file without one is read only under a named semantics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, nearest
from ..files import canonical_json

Compare = Literal["gt", "ge"]
Reset = Literal["value", "subtract"]
InputCoding = Literal["direct", "spikes", "events"]

VERSION = 1


@dataclass(frozen=True)
class Float32:
    """Rounded multiply, rounded add, in float32; sums in any order."""

    kind: Literal["float32"] = "float32"


@dataclass(frozen=True)
class Grid:
    """float32 whose sums are exact: per layer, weights are multiples of 2^-weight_exponents and
    currents of 2^-product_exponents."""

    weight_exponents: Mapping[str, int]
    product_exponents: Mapping[str, int]
    kind: Literal["grid"] = "grid"


@dataclass(frozen=True)
class Integer:
    """Loihi integers. ``bias_exponents``: per layer, its biases are multiples of 2^e / 64.

    ``host_scale``: a layer listed here gets its current from the host, computed in float32 from
    the input and written as one bias per neuron, ``rint(c * scale * 64 / 2^e) << e``.
    """

    weight_bits: int
    bias_exponents: Mapping[str, int]
    host_scale: Mapping[str, int] = field(default_factory=dict)
    kind: Literal["integer"] = "integer"


Arithmetic = Float32 | Grid | Integer
_ARITHMETICS: dict[str, type[Float32] | type[Grid] | type[Integer]] = {
    "float32": Float32,
    "grid": Grid,
    "integer": Integer,
}


@dataclass(frozen=True)
class Contract:
    """How a network runs, field by field.

    ``dt`` seconds per step; ``steps`` the T it was trained at; ``integrator`` euler: decay is
    1 - dt/tau; ``compare`` gt fires at v > threshold, ge at v >= threshold; ``reset`` value sets
    v to v_reset, subtract takes the threshold off, both in the step of the spike; ``input_scale``
    what one level of a stored input is worth (a power of two) and ``input_levels`` the largest
    level; ``input_coding`` direct: the same frame at every step.
    """

    steps: int
    dt: float = 1e-4
    integrator: Literal["euler"] = "euler"
    compare: Compare = "gt"
    reset: Reset = "value"
    input_coding: InputCoding = "direct"
    input_scale: float = 1.0
    input_levels: int = 1
    readout: Literal["current_mean"] = "current_mean"
    arithmetic: Arithmetic = field(default_factory=Float32)
    producer: str = ""

    def frames(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Stored inputs to what enters the network.

        Integers are levels and are multiplied by ``input_scale``; floats are taken as they are.
        """
        if x.dtype.kind in "iu":
            if x.size and (int(x.min()) < 0 or int(x.max()) > self.input_levels):
                raise RequestError(
                    "E_INPUT",
                    f"the input holds levels from {x.min()} to {x.max()}, the contract says "
                    f"0 to {self.input_levels}",
                )
            return x.astype(np.float32) * np.float32(self.input_scale)
        if x.dtype.kind != "f" or not np.isfinite(x).all():
            raise RequestError(
                "E_INPUT", f"the input must be finite numbers, found dtype {x.dtype}"
            )
        return x.astype(np.float32)

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
    def from_json(text: str) -> Contract:
        """Read a contract; RequestError (E_CONTRACT) names the field that is wrong."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise RequestError("E_CONTRACT", f"the contract is not JSON: {error}") from error
        return Contract.from_dict(data)

    @staticmethod
    def from_dict(data: Any) -> Contract:
        """Read a contract from plain values."""
        if not isinstance(data, dict) or data.get("contract") != VERSION:
            found = data.get("contract") if isinstance(data, dict) else type(data).__name__
            raise RequestError(
                "E_CONTRACT", f"the contract's version is {found!r}, this release reads {VERSION}"
            )
        fields = {key: value for key, value in data.items() if key != "contract"}
        fields["arithmetic"] = _arithmetic(fields.get("arithmetic"))
        _check_fields(fields)
        return Contract(**fields)


def _check_fields(fields: dict[str, Any]) -> None:
    known = Contract.__dataclass_fields__
    for name in fields:
        if name not in known:
            raise RequestError(
                "E_CONTRACT", f"the contract has an unknown field '{name}'{nearest(name, known)}"
            )
    for name in known:
        if name not in fields:
            raise RequestError("E_CONTRACT", f"the contract lacks the field '{name}'")
    words: dict[str, tuple[Any, ...]] = {
        "integrator": ("euler",),
        "compare": get_args(Compare),
        "reset": get_args(Reset),
        "input_coding": get_args(InputCoding),
        "readout": ("current_mean",),
    }
    for name, allowed in words.items():
        if fields[name] not in allowed:
            raise RequestError(
                "E_CONTRACT",
                f"the contract says {name} = {fields[name]!r}; this release knows "
                f"{', '.join(allowed)}",
            )
    for name in ("steps", "input_levels"):
        if type(fields[name]) is not int or not 1 <= fields[name] <= 1_000_000:
            raise RequestError(
                "E_CONTRACT",
                f"the contract says {name} = {fields[name]!r}; a whole number of 1 or more "
                "is expected",
            )
    for name in ("dt", "input_scale"):
        value = fields[name]
        if type(value) not in (int, float) or not 0 < value < 1e9:
            raise RequestError(
                "E_CONTRACT", f"the contract says {name} = {value!r}; a number above 0 is expected"
            )
    if not isinstance(fields["producer"], str):
        raise RequestError("E_CONTRACT", "the contract's producer is not a text")


def _arithmetic(data: Any) -> Arithmetic:
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in _ARITHMETICS:
        raise RequestError(
            "E_CONTRACT",
            f"the contract's arithmetic is {kind!r}; this release knows {', '.join(_ARITHMETICS)}",
        )
    form = _ARITHMETICS[kind]
    if set(data) != set(form.__dataclass_fields__):
        raise RequestError(
            "E_CONTRACT",
            f"the contract's arithmetic '{kind}' has the fields {', '.join(sorted(data))}; "
            f"expected {', '.join(sorted(form.__dataclass_fields__))}",
        )
    for name, value in data.items():
        if name == "kind":
            continue
        values = value.values() if isinstance(value, dict) else (value,)
        if any(type(v) is not int for v in values):
            raise RequestError(
                "E_CONTRACT", f"the contract's arithmetic field '{name}' must hold whole numbers"
            )
    return form(**data)
