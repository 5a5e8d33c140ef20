"""Chips as data: limits and published prices, each with its bounds, kind, condition and source.

A chip is a TOML file, schema 1. A price that is missing has not been published: it is never taken
as zero. Numbers are kept as the decimals that stand in the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ..errors import RequestError, nearest

SCHEMA = 1
CHIPS = Path(__file__).parent / "chips"
_LARGEST_FILE = 1 << 20
_SMALLEST, _LARGEST = Decimal("1e-12"), Decimal("1e12")

Model = Literal["davies", "ac_mac"]
Scope = Literal["per_term", "all_in"]
Kind = Literal["S", "M", "R", "A", "D"]
KINDS: Mapping[str, str] = {
    "S": "simulated before silicon",
    "M": "measured on silicon",
    "R": "regression on measured silicon",
    "A": "whole chip power divided by its event rate",
    "D": "derived from published figures by plain arithmetic",
}
GRADES = ("U", "D", "S", "R", "A", "M")
"""Weakest first; U: no price is published. A sum is as good as its weakest part."""

ENERGY_KEYS: Mapping[Model, tuple[str, ...]] = {
    "davies": (
        "synop_pj",
        "update_act_pj",
        "update_inact_pj",
        "spike_tile_pj",
        "hop_ew_pj",
        "hop_ns_pj",
    ),
    "ac_mac": ("ac_pj", "mac_pj"),
}
NUMBER_FORMATS = ("fp32", "fp16", "int8")
"""Model ac_mac has one table of prices for each, ``[energy.fp32]``."""
_POWER_KEYS = ("static_chip_mw",)
_TIME_KEYS = ("step_us", "barrier_ns", "synop_ns", "update_ns")
_CHIP_KEYS = (
    *("schema", "name", "title", "process_nm", "voltage_v", "date", "scope", "model", "notes"),
    *("limits", "syn_format", "energy", "power", "time", "sources"),
)
_PRICE_KEYS = ("value", "low", "high", "kind", "cond", "src")


@dataclass(frozen=True)
class Price:
    """One published constant: low <= value <= high, unit in its key's suffix; ``src`` names
    entries of the chip's sources.
    """

    value: Decimal
    low: Decimal
    high: Decimal
    kind: Kind
    cond: str
    src: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """Tiles across and down; ``assumed`` when no source states the layout."""

    size: tuple[int, int]
    assumed: bool = False


@dataclass(frozen=True)
class Limits:
    """What one core and one chip can hold; None: not published, so not checked."""

    cores: int | None = None
    tiles: int | None = None
    cores_per_tile: int | None = None
    grid: Grid | None = None
    neurons_per_core: int | None = None
    axons_in: int | None = None
    axons_out: int | None = None
    syn_bits_per_core: int | None = None
    thresholds_per_core: int | None = None
    weight_bits: tuple[int, int] | None = None
    state_bits: int | None = None
    delay_max: int | None = None
    graded_bits: int | None = None
    conv_sharing: bool | None = None


@dataclass(frozen=True)
class SynapseFormat:
    """How an axon's list of synapses lies in memory: blocks of ``block`` synapses of weight and
    index bits behind a header, rounded up to whole words.
    """

    header_bits: int
    word_bits: int
    block: int
    idx_bits: int


@dataclass(frozen=True)
class Chip:
    """One chip. ``energy``: number format (``""`` where the model has none) to key to price."""

    name: str
    title: str
    model: Model
    scope: Scope
    process_nm: int
    voltage_v: Decimal
    date: str
    notes: tuple[str, ...]
    limits: Limits
    syn_format: SynapseFormat | None
    energy: Mapping[str, Mapping[str, Price]]
    power: Mapping[str, Price]
    time: Mapping[str, Price]
    sources: Mapping[str, str] = field(default_factory=dict)

    def prices(self) -> dict[str, Price]:
        """Every price of the file by its full key (``energy.fp32.ac_pj``)."""
        found = {}
        for form, table in self.energy.items():
            prefix = f"energy.{form}." if form else "energy."
            found.update({prefix + key: price for key, price in table.items()})
        found.update({f"power.{key}": price for key, price in self.power.items()})
        found.update({f"time.{key}": price for key, price in self.time.items()})
        return found


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

    def whole(self, key: str) -> int:
        value = self.data.get(key)
        if type(value) is not int or value < 0:
            raise self.wrong(key, "a whole number of 0 or more")
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
        if not isinstance(value, list) or [type(v) for v in value] != [int, int]:
            raise self.wrong(key, "two whole numbers")
        return (value[0], value[1])

    def flag(self, key: str) -> bool:
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value


def _price(data: Any, where: str, sources: Mapping[str, str]) -> Price:
    table = _Table(data, where, _PRICE_KEYS)
    value, low, high = (table.decimal(key) for key in ("value", "low", "high"))
    if not low <= value <= high:
        raise RequestError(
            "E_CHIP", f"{where}: low <= value <= high does not hold: {low}, {value}, {high}"
        )
    src = table.texts("src")
    if not src:
        raise table.wrong("src", "a list with at least one key of [sources]")
    for key in src:
        if key not in sources:
            raise RequestError(
                "E_CHIP", f"{where}: [sources] has no '{key}'{nearest(key, sources)}"
            )
    kind = cast(Kind, table.word("kind", get_args(Kind)))
    return Price(value, low, high, kind, table.text("cond"), src)


def _prices(
    data: Any, where: str, known: tuple[str, ...], sources: Mapping[str, str]
) -> dict[str, Price]:
    table = _Table(data, where, known)
    return {key: _price(table.data[key], f"{where}.{key}", sources) for key in table.data}


def _energy(
    data: Any, where: str, model: Model, scope: Scope, sources: Mapping[str, str]
) -> dict[str, dict[str, Price]]:
    if scope == "all_in":
        if isinstance(data, dict) and set(data) - {"synop_pj"}:
            extra = ", ".join(sorted(set(data) - {"synop_pj"}))
            raise RequestError(
                "E_CHIP",
                f"{where}: scope all_in allows only 'synop_pj', which holds everything; found "
                f"{extra}",
            )
        return {"": _prices(data, where, ("synop_pj",), sources)}
    if model == "davies":
        return {"": _prices(data, where, ENERGY_KEYS[model], sources)}
    formats = _Table(data, where, NUMBER_FORMATS)
    return {
        name: _prices(table, f"{where}.{name}", ENERGY_KEYS[model], sources)
        for name, table in formats.data.items()
    }


def _limits(data: Any, where: str) -> Limits:
    table = _Table(data, where, Limits.__dataclass_fields__)
    found: dict[str, Any] = {}
    for key in table.data:
        if key == "grid":
            grid = _Table(table.data[key], f"{where}.grid", ("size", "assumed"))
            found[key] = Grid(grid.pair("size"), grid.flag("assumed"))
        elif key == "weight_bits":
            found[key] = table.pair(key)
        elif key == "conv_sharing":
            found[key] = table.flag(key)
        else:
            found[key] = table.whole(key)
    return Limits(**found)


def _syn_format(data: Any, where: str) -> SynapseFormat:
    keys = list(SynapseFormat.__dataclass_fields__)
    table = _Table(data, where, keys)
    found = SynapseFormat(**{key: table.whole(key) for key in keys})
    if found.block < 1 or found.word_bits < 1:
        raise RequestError("E_CHIP", f"{where}: 'block' and 'word_bits' must be 1 or more")
    return found


def _chip(data: dict[str, Any], where: str) -> Chip:
    table = _Table(data, where, _CHIP_KEYS)
    if table.whole("schema") != SCHEMA:
        raise table.wrong("schema", f"{SCHEMA}, which this release reads")
    model = cast(Model, table.word("model", get_args(Model)))
    scope = cast(Scope, table.word("scope", get_args(Scope)))
    named = _Table(data.get("sources", {}), f"{where}: sources", None)
    sources = {key: named.text(key) for key in named.data}
    if scope == "all_in" and ("power" in data or "time" in data):
        raise RequestError(
            "E_CHIP", f"{where}: scope all_in holds the static power: [power], [time] must go"
        )
    return Chip(
        name=table.text("name"),
        title=table.text("title"),
        model=model,
        scope=scope,
        process_nm=table.whole("process_nm"),
        voltage_v=table.decimal("voltage_v"),
        date=table.text("date", default=""),
        notes=table.texts("notes"),
        limits=_limits(data.get("limits", {}), f"{where}: limits"),
        syn_format=_syn_format(data["syn_format"], f"{where}: syn_format")
        if "syn_format" in data
        else None,
        energy=_energy(data.get("energy", {}), f"{where}: energy", model, scope, sources),
        power=_prices(data.get("power", {}), f"{where}: power", _POWER_KEYS, sources),
        time=_prices(data.get("time", {}), f"{where}: time", _TIME_KEYS, sources),
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
