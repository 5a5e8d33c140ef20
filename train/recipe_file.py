"""Recipe files: TOML, read strictly, and written back with every field."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import RequestError, nearest
from ..files import canonical_json
from .recipe import Empty, Range, Recipe

_PARTS: dict[str, type] = get_type_hints(Recipe)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file; each override is ``section.key=value``, the value as in TOML or a word.

    Raises RequestError (E_RECIPE) that names the file (or ``--set``), the key, the value found and
    what is expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError("E_RECIPE", f"cannot read recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError("E_RECIPE", f"{path}: is not UTF-8 text ({error.reason})") from error
    return parse_recipe(text, str(path), overrides)


def parse_recipe(text: str, where: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from its TOML text; ``where`` names the text in messages. See `read_recipe`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError("E_RECIPE", f"{where}: is not TOML: {error}") from error
    values: dict[str, dict[str, Any]] = {name: {} for name in _PARTS}
    for section, table in tables.items():
        if section not in _PARTS:
            raise RequestError(
                "E_RECIPE",
                f"{where}: unknown section '{section}'; expected one of "
                f"{', '.join(_PARTS)}{nearest(section, _PARTS)}",
            )
        if not isinstance(table, dict):
            raise RequestError(
                "E_RECIPE", f"{where}: {section} is {_toml(table)}, expected a table [{section}]"
            )
        for key, value in table.items():
            values[section][key] = _value(section, key, value, where)
    for override in overrides:
        section, key, value = _override(override)
        values[section][key] = _value(section, key, value, f"--set {override}")
    return _recipe(values, where)


def _recipe(values: dict[str, dict[str, Any]], where: str) -> Recipe:
    for section, part in _PARTS.items():
        for item in fields(part):
            if item.default is MISSING and item.name not in values[section]:
                raise RequestError("E_RECIPE", f"{where}: {section}.{item.name} is missing")
    recipe = Recipe(**{section: part(**values[section]) for section, part in _PARTS.items()})
    _refuse_useless(recipe, where)
    channels, strides = recipe.model.channels, recipe.model.strides
    if len(channels) != len(strides):
        raise RequestError(
            "E_RECIPE",
            f"{where}: model.channels has {len(channels)} entries and model.strides has "
            f"{len(strides)}, expected one stride for each",
        )
    return recipe


_USES: dict[tuple[str, str], tuple[str, Callable[[Recipe], bool]]] = {
    ("train", "momentum"): (
        "train.optimizer = sgd or lars",
        lambda r: r.train.optimizer != "adamw",
    ),
    ("loss", "mse_target"): ("loss.mse above 0", lambda r: r.loss.mse > 0),
    ("loss", "teacher_share"): ("a loss.teacher", lambda r: r.loss.teacher != ""),
    ("loss", "temperature"): ("a loss.teacher", lambda r: r.loss.teacher != ""),
    ("neuron", "synaptic_decay"): ("neuron.name = cuba_lif", lambda r: r.neuron.name == "cuba_lif"),
    ("quantise", "start"): ("quantise.bits above 0", lambda r: r.quantise.bits > 0),
    ("quantise", "thresholds"): ("quantise.bits above 0", lambda r: r.quantise.bits > 0),
}
"""What has a use with something else only: that, in words and as a question."""


def _refuse_useless(recipe: Recipe, where: str) -> None:
    for (section, key), (other, used) in _USES.items():
        part = getattr(recipe, section)
        default = next(item.default for item in fields(part) if item.name == key)
        found = getattr(part, key)
        if found != default and not used(recipe):
            raise RequestError(
                "E_RECIPE",
                f"{where}: {section}.{key} is {_toml(found)}, which has no use without {other}",
            )


def _override(text: str) -> tuple[str, str, Any]:
    """``train.lr=0.01`` to ("train", "lr", 0.01); what is not TOML is a word."""
    name, equals, written = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot or section not in _PARTS:
        known = [f"{section}.{f.name}" for section, part in _PARTS.items() for f in fields(part)]
        raise RequestError(
            "E_RECIPE",
            f"--set {text}: expected section.key=value, with a section out of "
            f"{', '.join(_PARTS)}{nearest(name.strip(), known)}",
        )
    try:
        parsed = tomllib.loads(f"value = {written}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    # A line break in the text could have smuggled in a second key.
    return section, key, parsed["value"] if parsed.keys() == {"value"} else written.strip()


def _value(section: str, key: str, value: Any, where: str) -> Any:
    """A TOML value as the field's type, checked."""
    hints = get_type_hints(_PARTS[section], include_extras=True)
    if key not in hints:
        raise RequestError(
            "E_RECIPE",
            f"{where}: unknown key '{section}.{key}'; the section has "
            f"{', '.join(hints)}{nearest(key, hints)}",
        )
    kind, limits = hints[key], Range()
    if get_origin(kind) is Annotated:
        kind, limits = get_args(kind)
    if value == "" and isinstance(limits, Empty):
        return value
    limits = Range() if isinstance(limits, Empty) else limits
    converted = _converted(kind, value)
    if converted is None or not _within(converted, limits):
        raise RequestError(
            "E_RECIPE",
            f"{where}: {section}.{key} is {_toml(value)}, expected {_expected(kind, limits)}",
        )
    return float(converted) if type(converted) is int and _is_real(kind) else converted


def _within(value: Any, limits: Range) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return isinstance(value, str) or all(number in limits for number in numbers)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_real(kind: Any) -> bool:
    return float in _alternatives(kind)


def _converted(kind: Any, value: Any) -> Any:
    """``value`` where it fits ``kind`` (a list as a tuple), or None where it does not.

    A bool is no number, a whole number may stand for a float, a float never for a whole number.
    """
    if len(_alternatives(kind)) > 1:
        found = (_converted(each, value) for each in get_args(kind))
        return next((each for each in found if each is not None), None)
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else None
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            return None
        items = tuple(_converted(get_args(kind)[0], item) for item in value)
        return None if None in items else items
    if kind is float and type(value) is int:
        return value
    if kind is str and isinstance(value, str):
        return value if value and value.isprintable() else None
    return value if type(value) is kind else None


def _expected(kind: Any, limits: Range) -> str:
    if len(_alternatives(kind)) > 1:
        return " or ".join(_expected(each, limits) for each in get_args(kind))
    if get_origin(kind) is Literal:
        known = get_args(kind)
        return f"one of {', '.join(known)}" if len(known) > 1 else f"'{known[0]}'"
    if get_origin(kind) is tuple:
        return f"a list of whole numbers, each {limits}"
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a printable text",
    }
    return f"{words[kind]} {limits}".rstrip()


def _toml(value: Any) -> str:
    """One value as TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(item)}' for key, item in value.items())}}}"
    return str(value)


def to_toml(recipe: Recipe) -> str:
    """The recipe with every field written out; `parse_recipe` reads it back equal."""
    sections = []
    for section, values in asdict(recipe).items():
        lines = [f"{key} = {_toml(value)}\n" for key, value in values.items()]
        sections.append(f"[{section}]\n{''.join(lines)}")
    return "\n".join(sections)


def recipe_hash(recipe: Recipe) -> str:
    """Hex sha256 of the resolved recipe, the same however its file was written."""
    return hashlib.sha256(canonical_json(asdict(recipe)).encode()).hexdigest()
