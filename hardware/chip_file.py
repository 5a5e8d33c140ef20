"""Chip files: TOML, schema 1. Every key is known, every price has a source, or the file is refused.

Units stand in the suffix of a key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, cast, get_args

from ..errors import RequestError, nearest
from .chip import (
    ENERGY_KEYS,
    NUMBER_FORMATS,
    POWER_KEYS,
    TIME_KEYS,
    Chip,
    CoreKind,
    Grid,
    Kind,
    Limits,
    Memory,
    Model,
    Price,
    Scope,
    Sram,
    SynapseFormat,
)

SCHEMA = 1
CHIPS = Path(__file__).parent / "chips"
_LARGEST_FILE = 1 << 20
_SMALLEST, _LARGEST = Decimal("1e-12"), Decimal("1e12")
_CHIP_KEYS = (
    *("schema", "name", "title", "process_nm", "voltage_v", "date", "scope", "model", "notes"),
    *("limits", "syn_format", "energy", "memory", "power", "time", "sources"),
)
_PRICE_KEYS = ("value", "low", "high", "kind", "cond", "src")
_WIDTHS = ("weight_bits", "state_bits", "activation_bits", "address_bits")


class _Table:
    """One TOML table being read: every key is taken once, what is left over is an error."""

    def __init__(self, data: Any, where: str, known: Collection[str] | None) -> None:
        if not isinstance(data, dict):
            raise RequestError("E_CHIP", f"{where}: expected a table, found {data!r}")
        for key in data:
            if known is not None and key not in known:
                raise RequestError("E_CHIP", f"{where}: unknown key '{key}'{nearest(key, known)}")
        self.data, self.where = data, where

    def wrong(self, key: str, expected: str) -> RequestError:
        found = f"found {self.data[key]!r}" if key in self.data else "it is missing"
        return RequestError("E_CHIP", f"{self.where}: '{key}' must be {expected}; {found}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self.wrong(key, "a text")
        return value

    def word(self, key: str, words: tuple[str, ...]) -> str:
        if self.data.get(key) not in words:
            raise self.wrong(key, f"one of {', '.join(words)}")
        return str(self.data[key])

    def whole(self, key: str, least: int = 0) -> int:
        value = self.data.get(key)
        if type(value) is not int or not least <= value <= _LARGEST:
            raise self.wrong(key, f"a whole number of {least} or more")
        return value

    def tables(self, key: str) -> list[Any]:
        value = self.data.get(key)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, "a list of tables")
        return value

    def decimal(self, key: str) -> Decimal:
        value = self.data.get(key)
        number = Decimal(value) if type(value) is int else value
        if (
            not isinstance(number, Decimal)
            or not number.is_finite()
            or (number != 0 and not _SMALLEST <= number <= _LARGEST)
        ):
            raise self.wrong(key, f"0, or a number from {_SMALLEST} to {_LARGEST}")
        return number

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def pair(self, key: str) -> tuple[int, int]:
        value = self.data.get(key)
        if (
            not isinstance(value, list)
            or [type(v) for v in value] != [int, int]
            or not all(1 <= v <= _LARGEST for v in value)
        ):
            raise self.wrong(key, "two whole numbers of 1 or more")
        return (value[0], value[1])

    def flag(self, key: str) -> bool:
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value


def _price(data: Any, where: str, key: str, sources: Mapping[str, str]) -> Price:
    where = f"{where}.{key.rpartition('.')[2]}"
    table = _Table(data, where, _PRICE_KEYS)
    value, low, high = (table.decimal(name) for name in ("value", "low", "high"))
    if not low <= value <= high:
        raise RequestError(
            "E_CHIP", f"{where}: low <= value <= high does not hold: {low}, {value}, {high}"
        )
    src = table.texts("src")
    if not src:
        raise table.wrong("src", "a list with at least one key of [sources]")
    for name in src:
        if name not in sources:
            raise RequestError(
                "E_CHIP", f"{where}: [sources] has no '{name}'{nearest(name, sources)}"
            )
    kind = cast(Kind, table.word("kind", get_args(Kind)))
    return Price(value, low, high, kind, table.text("cond"), src, key)


def _prices(
    data: Any, where: str, prefix: str, known: tuple[str, ...], sources: Mapping[str, str]
) -> dict[str, Price]:
    table = _Table(data, where, known)
    return {key: _price(table.data[key], where, f"{prefix}.{key}", sources) for key in table.data}


def _energy(
    data: Any, where: str, model: Model, sources: Mapping[str, str]
) -> dict[str, dict[str, Price]]:
    if model != "ac_mac":
        return {"": _prices(data, where, "energy", ENERGY_KEYS[model], sources)}
    formats = _Table(data, where, NUMBER_FORMATS)
    return {
        name: _prices(table, f"{where}.{name}", f"energy.{name}", ENERGY_KEYS[model], sources)
        for name, table in formats.data.items()
    }


def _memory(data: Any, where: str, sources: Mapping[str, str]) -> Memory:
    table = _Table(data, where, ("sram", *_WIDTHS))
    parts = table.data.get("sram")
    if not isinstance(parts, list) or not parts:
        raise table.wrong("sram", "a list with at least one { bytes, price }")
    sram = []
    for number, part in enumerate(parts):
        one = _Table(part, f"{where}.sram[{number}]", ("bytes", "price"))
        price = _price(one.data.get("price"), one.where, f"memory.sram[{number}].price", sources)
        sram.append(Sram(one.whole("bytes", least=1), price))
    if [one.bytes for one in sram] != sorted({one.bytes for one in sram}):
        raise table.wrong("sram", "in the order of bytes")
    return Memory(tuple(sram), *(table.whole(key, least=1) for key in _WIDTHS))


def _limits(data: Any, where: str) -> Limits:
    table = _Table(data, where, Limits.__dataclass_fields__)
    found: dict[str, Any] = {}
    for key in table.data:
        if key == "grid":
            grid = _Table(table.data[key], f"{where}.grid", ("size", "assumed"))
            found[key] = Grid(grid.pair("size"), grid.flag("assumed"))
        elif key == "per_core":
            found[key] = tuple(_core_kind(part, where) for part in table.tables(key))
        elif key == "weight_bits":
            found[key] = table.pair(key)
        elif key in ("conv_sharing", "pipelined"):
            found[key] = table.flag(key)
        else:
            found[key] = table.whole(key, least=int(key in ("cores", "tiles", "cores_per_tile")))
    limits = Limits(**found)
    if limits.grid is not None:
        width, height = limits.grid.size
        tiles, cores = limits.tiles or 0, limits.cores_per_tile or 0
        if width * height != tiles or tiles * cores != limits.cores:
            raise RequestError(
                "E_CHIP",
                f"{where}: a grid of {width} x {height} tiles needs 'tiles', 'cores_per_tile' and "
                f"'cores' that agree with it; found {tiles}, {cores} and {limits.cores}",
            )
    if limits.per_core and len(limits.per_core) != limits.cores:
        raise RequestError(
            "E_CHIP",
            f"{where}: 'per_core' lists {len(limits.per_core)} cores, 'cores' is {limits.cores}",
        )
    return limits


def _core_kind(data: Any, where: str) -> CoreKind:
    table = _Table(data, f"{where}.per_core", ("neurons", "weights"))
    return CoreKind(table.whole("neurons", least=1), table.whole("weights", least=1))


def _syn_format(data: Any, where: str) -> SynapseFormat:
    keys = list(SynapseFormat.__dataclass_fields__)
    table = _Table(data, where, keys)
    least = {"block": 1, "word_bits": 1}
    return SynapseFormat(**{key: table.whole(key, least=least.get(key, 0)) for key in keys})


def _consistent(data: dict[str, Any], where: str, model: Model, scope: Scope) -> None:
    """What one part of a file says about another."""
    if scope == "all_in" and model != "synop":
        raise RequestError(
            "E_CHIP",
            f"{where}: scope all_in is one price that holds everything, so the model must be "
            f"synop; found {model}",
        )
    if scope == "all_in" and ("power" in data or "time" in data):
        raise RequestError(
            "E_CHIP", f"{where}: scope all_in holds the static power: [power], [time] must go"
        )
    if model == "limits" and data.keys() & {"energy", "power", "time"}:
        raise RequestError(
            "E_CHIP", f"{where}: model limits has no prices: [energy], [power], [time] must go"
        )
    if (model == "memory") != ("memory" in data):
        raise RequestError("E_CHIP", f"{where}: model memory and a table [memory] go together")


def _chip(data: dict[str, Any], where: str) -> Chip:
    table = _Table(data, where, _CHIP_KEYS)
    if table.whole("schema") != SCHEMA:
        raise table.wrong("schema", f"{SCHEMA}, which this release reads")
    model = cast(Model, table.word("model", get_args(Model)))
    scope = cast(Scope, table.word("scope", get_args(Scope)))
    named = _Table(data.get("sources", {}), f"{where}: sources", None)
    sources = {key: named.text(key) for key in named.data}
    _consistent(data, where, model, scope)
    return Chip(
        name=table.text("name"),
        title=table.text("title"),
        model=model,
        scope=scope,
        process_nm=table.whole("process_nm") if "process_nm" in data else None,
        voltage_v=table.decimal("voltage_v") if "voltage_v" in data else None,
        date=table.text("date", default=""),
        notes=table.texts("notes"),
        limits=_limits(data.get("limits", {}), f"{where}: limits"),
        syn_format=_syn_format(data["syn_format"], f"{where}: syn_format")
        if "syn_format" in data
        else None,
        energy=_energy(data.get("energy", {}), f"{where}: energy", model, sources),
        power=_prices(data.get("power", {}), f"{where}: power", "power", POWER_KEYS, sources),
        time=_prices(data.get("time", {}), f"{where}: time", "time", TIME_KEYS, sources),
        memory=_memory(data["memory"], f"{where}: memory", sources) if "memory" in data else None,
        sources=sources,
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise RequestError("E_CHIP", f"{path}: larger than {_LARGEST_FILE} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, ValueError, ArithmeticError, RecursionError) as error:
        raise RequestError("E_CHIP", f"{path}: not a readable chip file ({error})") from error


def chip_names() -> dict[str, str]:
    """Name to title of every bundled chip."""
    return {path.stem: str(_parse(path).get("title", "")) for path in sorted(CHIPS.glob("*.toml"))}


def load_chip(name: str | Path) -> Chip:
    """A bundled chip by its name, or the chip of a ``.toml`` file by its path.

    Raises RequestError (E_CHIP): no such chip, or what is wrong in the file and where.
    """
    if isinstance(name, Path) or name.endswith(".toml"):
        path = Path(name)
    else:
        names = [path.stem for path in sorted(CHIPS.glob("*.toml"))]
        if name not in names:
            raise RequestError(
                "E_CHIP",
                f"there is no chip '{name}'; the chips are {', '.join(names)}, or the path of a "
                f".toml file{nearest(name, names)}",
            )
        path = CHIPS / f"{name}.toml"
    chip = _chip(_parse(path), path.name)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", chip.name) or (
        path.parent == CHIPS and chip.name != path.stem
    ):
        raise RequestError(
            "E_CHIP", f"{path.name}: its name '{chip.name}' is not a short name like '{path.stem}'"
        )
    return chip
