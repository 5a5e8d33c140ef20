"""Contracts from untrusted text, and what may enter a network under one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract, Float32, Grid, Integer

GRID = Grid({"a": 12, "b": -3}, {"a": 20, "b": -3})
CONTRACT = Contract(
    steps=6,
    dt=2e-4,
    compare="ge",
    reset="subtract",
    input_coding="events",
    input_scale=0.125,
    input_levels=8,
    arithmetic=GRID,
    producer="a test",
)
INTEGER = Integer(6, {"a": 7}, {"a": 2**20})


@pytest.mark.parametrize("arithmetic", [Float32(), GRID, INTEGER])
def test_plain_values_lead_back(arithmetic: Any) -> None:
    contract = CONTRACT.with_arithmetic(arithmetic)
    assert Contract.from_dict(contract.to_dict()) == contract


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("contract", 2, "version"),
        ("steps", 0, "1 to 1000000"),
        ("steps", True, "whole number"),
        ("steps", 2.0, "whole number"),
        ("dt", float("nan"), "dt"),
        ("dt", "1", "a number"),
        ("input_scale", 5e-324, "input_scale"),
        ("input_scale", -1, "input_scale"),
        ("compare", ["gt"], "gt, ge"),
        ("compare", "lt", "gt, ge"),
        ("producer", 3, "a text"),
        ("colour", 1, "unknown field 'colour'"),
        ("arithmetic", {"kind": []}, "float32, grid, integer"),
        ("arithmetic", "grid", "an object"),
        ("arithmetic", {"kind": "float32", "bits": 3}, "unknown field 'bits'"),
        ("arithmetic", {"kind": "grid", "weight_exponents": {}}, "lacks"),
        (
            "arithmetic",
            {"kind": "grid", "weight_exponents": 5, "product_exponents": {}},
            "weight_exponents is 5; expected an object",
        ),
        (
            "arithmetic",
            {"kind": "grid", "weight_exponents": {"a": -5000}, "product_exponents": {}},
            "-256 to 256",
        ),
        (
            "arithmetic",
            {
                "kind": "integer",
                "weight_bits": {"a": 8},
                "bias_exponents": {},
                "host_scale": {},
                "weight_exponents": {},
            },
            "weight_bits",
        ),
        (
            "arithmetic",
            {
                "kind": "integer",
                "weight_bits": 8,
                "bias_exponents": {},
                "host_scale": {"a": 10**400},
                "weight_exponents": {},
            },
            "host_scale of 'a'",
        ),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, word: str) -> None:
    with pytest.raises(RequestError) as caught:
        Contract.from_dict({**CONTRACT.to_dict(), field: value})
    assert caught.value.code == "E_CONTRACT"
    assert word in caught.value.message
    assert len(caught.value.message) < 300


def test_levels_are_scaled() -> None:
    found = CONTRACT.frames(np.array([[0, 3, 8]], np.uint8))
    assert (found.dtype, found.tolist()) == (np.float32, [[0.0, 0.375, 1.0]])


def test_floats_on_the_grid_are_taken_as_they_are() -> None:
    assert CONTRACT.frames(np.array([0.0, 0.375, 1.0])).tolist() == [0.0, 0.375, 1.0]


@pytest.mark.parametrize("arithmetic", [GRID, INTEGER])
@pytest.mark.parametrize(("value", "word"), [(0.3, "multiples"), (1.125, "levels"), (-0.125, "-1")])
def test_floats_beyond_what_is_certified_are_refused(
    arithmetic: Any, value: float, word: str
) -> None:
    x = np.array([0.5, value])
    assert CONTRACT.with_arithmetic(Float32()).frames(x).tolist() == [0.5, np.float32(value)]
    with pytest.raises(RequestError, match=word) as caught:
        CONTRACT.with_arithmetic(arithmetic).frames(x)
    assert caught.value.code == "E_INPUT"


@pytest.mark.parametrize(
    ("x", "word"),
    [
        (np.array([9]), "levels from 9"),
        (np.array([-1]), "levels from -1"),
        (np.array([np.nan]), "finite"),
        (np.array([1e300]), "finite"),
        (np.array(["1"]), "dtype"),
        (np.array([1j]), "dtype"),
    ],
)
def test_what_is_no_input_is_refused(x: Any, word: str) -> None:
    for arithmetic in (Float32(), GRID) if x.dtype.kind != "i" else (GRID,):
        with pytest.raises(RequestError, match=word) as caught:
            CONTRACT.with_arithmetic(arithmetic).frames(x)
        assert caught.value.code == "E_INPUT"
