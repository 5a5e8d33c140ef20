"""Plain values, as JSON holds them, to frozen dataclasses: exact keys, exact types, in range.

The forms are the dataclasses themselves: their fields' types say what is legal. A field whose name
in the text is no Python name carries that in its metadata (``key``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..errors import RequestError, nearest

Form = TypeVar("Form")


@dataclass(frozen=True)
class Between:
    """Annotation of a number: the least and the largest legal value."""

    low: float
    high: float


def parse(form: type[Form], data: Any, where: str) -> Form:
    """A dataclass from the dictionary of its fields; ``where`` begins the message of an error.

    Raises RequestError (E_CONTRACT) for an unknown or a missing field and for a value that is not
    of the field's type or range.
    """
    if not isinstance(data, dict):
        raise _wrong(where, data, "an object")
    types = get_type_hints(form, include_extras=True)
    names = {field.metadata.get("key", field.name): field.name for field in fields(form)}  # type: ignore[arg-type]  # every form is a dataclass
    for key in data:
        if key not in names:
            raise RequestError(
                "E_CONTRACT", f"{where} has an unknown field {key[:100]!r}{nearest(key, names)}"
            )
    for key in names:
        if key not in data:
            raise RequestError("E_CONTRACT", f"{where} lacks the field '{key}'")
    values = {
        name: _value(types[name], data[key], f"{where}: {key}") for key, name in names.items()
    }
    return form(**values)


def _wrong(where: str, value: Any, expected: str) -> RequestError:
    return RequestError("E_CONTRACT", f"{where} is {repr(value)[:100]}; expected {expected}")


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number, limits = _value(inner[0], value, where), inner[1]
        if not limits.low <= number <= limits.high:
            raise _wrong(where, value, f"{limits.low} to {limits.high}")
        return number
    if origin is Literal:
        if not isinstance(value, str) or value not in inner:
            raise _wrong(where, value, f"one of {', '.join(inner)}")
        return value
    if origin is UnionType:
        forms = {form.kind: form for form in inner}
        name = value.get("kind") if isinstance(value, dict) else value
        if not isinstance(name, str) or name not in forms:
            raise _wrong(f"{where}: kind", name, f"one of {', '.join(forms)}")
        return parse(forms[name], value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _wrong(where, value, "an object")
        return {
            key: _value(inner[1], item, f"{where} of {key[:100]!r}") for key, item in value.items()
        }
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, value, "a list")
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            raise _wrong(where, value, f"a list of {len(inner)}")
        return tuple(_value(inner[0], item, where) for item in value)
    if kind in _PLAIN:
        # bool is an int to isinstance, not here.
        if type(value) not in _PLAIN[kind][0]:
            raise _wrong(where, value, _PLAIN[kind][1])
        return value
    return parse(kind, value, where)


_PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
}
