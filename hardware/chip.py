"""A chip as data: limits and published prices, each with its bounds, kind, condition and source.

A price that is missing has not been published: it is never taken as zero. Numbers are the decimals
that stand in the chip's file, which `chip_file` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

Model = Literal["davies", "soma", "synop", "ac_mac", "memory", "limits"]
"""Which terms a chip's energy has: see `terms`; ``limits``: no price is published."""
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
        *("synop_pj", "update_act_pj", "update_inact_pj"),
        *("spike_tile_pj", "hop_ew_pj", "hop_ns_pj", "interchip_pj"),
    ),
    "soma": (
        *("synop_dense_pj", "synop_sparse_pj", "synop_conv_pj"),
        *("access_pj", "update_pj", "spike_out_pj"),
        *("message_pj", "hop_ew_pj", "hop_ns_pj", "interchip_pj"),
    ),
    "synop": ("synop_pj",),
    "ac_mac": ("ac_pj", "mac_pj"),
    "memory": ("add_pj", "mul_pj", "compare_pj", "decay_pj", "dram_pj"),
    "limits": (),
}
NUMBER_FORMATS = ("fp32", "fp16", "int8")
"""Model ac_mac has one table of prices for each, ``[energy.fp32]``."""
POWER_KEYS = ("static_chip_mw", "clock_mw_per_mhz")
TIME_KEYS = ("step_us", "barrier_ns", "synop_ns", "update_ns", "clock_mhz")


@dataclass(frozen=True)
class Price:
    """One published constant: low <= value <= high, its unit is the suffix of ``key``, which is
    its place in the file (``energy.fp32.ac_pj``); ``src`` names entries of the chip's sources.
    """

    value: Decimal
    low: Decimal
    high: Decimal
    kind: Kind
    cond: str
    src: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Grid:
    """Tiles across and down; ``assumed`` when no source states the layout."""

    size: tuple[int, int]
    assumed: bool = False


@dataclass(frozen=True)
class CoreKind:
    """What one of several unequal cores holds."""

    neurons: int
    weights: int


@dataclass(frozen=True)
class Limits:
    """What one core and one chip can hold; None: not published, so not checked.

    ``axons_in``: sources that reach a core. ``axons_out``: messages that leave it when each neuron
    fires once. ``targets_per_neuron``: cores that one neuron's spike can be sent to. ``fan_in``:
    synapses of one neuron. ``graded_bits`` 0: spikes are binary. ``conv_sharing``: a core stores a
    kernel once, not once for each neuron. ``pipelined``: what a layer sends arrives one step later,
    so that paths of unequal length need relays. ``per_core``: unequal cores; no layer is cut then.
    """

    cores: int | None = None
    tiles: int | None = None
    cores_per_tile: int | None = None
    grid: Grid | None = None
    neurons_per_core: int | None = None
    axons_in: int | None = None
    axons_out: int | None = None
    targets_per_neuron: int | None = None
    fan_in: int | None = None
    syn_bits_per_core: int | None = None
    thresholds_per_core: int | None = None
    weight_bits: tuple[int, int] | None = None
    state_bits: int | None = None
    delay_max: int | None = None
    graded_bits: int | None = None
    conv_sharing: bool = False
    pipelined: bool = False
    per_core: tuple[CoreKind, ...] = ()


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
class Sram:
    """One access of a memory of ``bytes``, for a word of 64 bits."""

    bytes: int
    price: Price


@dataclass(frozen=True)
class Memory:
    """On-chip memories by size, ascending, and the width of what they hold (bits)."""

    sram: tuple[Sram, ...]
    weight_bits: int
    state_bits: int
    activation_bits: int
    address_bits: int


@dataclass(frozen=True)
class Chip:
    """One chip. ``energy``: number format (``""`` where the model has none) to key to price."""

    name: str
    title: str
    model: Model
    scope: Scope
    process_nm: int | None
    voltage_v: Decimal | None
    date: str
    notes: tuple[str, ...]
    limits: Limits
    syn_format: SynapseFormat | None
    energy: Mapping[str, Mapping[str, Price]]
    power: Mapping[str, Price]
    time: Mapping[str, Price]
    memory: Memory | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def prices(self) -> dict[str, Price]:
        """Every price of the file by its full key."""
        tables = (*self.energy.values(), self.power, self.time)
        found = [price for table in tables for price in table.values()]
        found += [one.price for one in self.memory.sram] if self.memory else []
        return {price.key: price for price in found}

    def unpublished(self) -> tuple[str, ...]:
        """Keys of the prices that this chip's model has and its file has not."""
        missing = []
        for form, table in self.energy.items():
            prefix = f"energy.{form}." if form else "energy."
            missing += [prefix + key for key in ENERGY_KEYS[self.model] if key not in table]
        if self.scope == "per_term":
            missing += [f"power.{key}" for key in POWER_KEYS[:1] if key not in self.power]
            missing += [f"time.{key}" for key in TIME_KEYS[:1] if key not in self.time]
        return tuple(missing)
