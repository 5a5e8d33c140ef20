"""What one access of an on-chip memory costs, by its size and the width of a word.

A published access moves 64 bits. Streamed, a narrower word costs its share; alone, the whole.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

from ..errors import RequestError
from .chip import Chip, Price

WORD = 64


def _between(low: Price, high: Price, share: Decimal, key: str) -> Price:
    def mix(a: Decimal, b: Decimal) -> Decimal:
        return a + (b - a) * share

    return Price(
        mix(low.value, high.value),
        mix(low.low, high.low),
        mix(low.high, high.high),
        low.kind,
        low.cond,
        tuple(dict.fromkeys((*low.src, *high.src))),
        key,
    )


def word_price(chip: Chip, size: int) -> Price:
    """64 bits of a memory of ``size`` bytes: as the smallest below it, between sizes interpolated,
    above the largest DRAM. Raises RequestError (E_CHIP) when the chip has no price for that.
    """
    sram = chip.memory.sram if chip.memory else ()
    if sram and size <= sram[0].bytes:
        return sram[0].price
    for small, large in pairwise(sram):
        if size <= large.bytes:
            share = Decimal(size - small.bytes) / (large.bytes - small.bytes)
            return _between(small.price, large.price, share, f"memory.sram at {size} bytes")
    dram = chip.energy.get("", {}).get("dram_pj")
    if dram is None:
        raise RequestError(
            "E_CHIP", f"chip '{chip.name}' has no price for a memory of {size:,} bytes"
        )
    return dram


def access(chip: Chip, bits: int, memory_bits: int) -> Price:
    """One word of ``bits`` in a memory of ``memory_bits``: its share of 64 bits (streamed; value
    and lower bound), or all of them (upper bound).
    """
    word = word_price(chip, -(-memory_bits // 8))
    share = Decimal(bits) / WORD
    return Price(
        word.value * share,
        word.low * share,
        word.high * max(Decimal(1), share),
        word.kind,
        f"{bits} of 64 bits; high: all 64; {word.cond}",
        word.src,
        word.key,
    )
