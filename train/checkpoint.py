"""The trained module on disk, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from ..errors import RequestError
from ..files import canonical_json, write_file
from .build import build
from .recipe import Recipe
from .recipe_file import read_recipe

RECIPE = "recipe.toml"
HISTORY = "history.json"
MODEL = "model.safetensors"
WITNESS = "witness.npz"
STATE = "state.safetensors"
"""Of a training that has not finished."""


def save(model: nn.Module, path: Path, facts: Mapping[str, str]) -> None:
    """Write parameters and buffers, whole or not at all; the header carries ``facts`` as JSON.

    One text under one key: safetensors writes several keys in no fixed order.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = serialise(state, {"snnpipe": canonical_json(dict(facts))})

    def write(beside: Path) -> None:
        beside.write_bytes(content)

    write_file(path, write)


def load_state(model: nn.Module, path: Path) -> None:
    """Fill a module from a file of exactly its names, shapes and dtypes, all finite.

    Raises RequestError (E_CHECKPOINT) naming the file and the first thing that differs.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RequestError("E_CHECKPOINT", f"{path}: not readable ({error})") from error
    expected = model.state_dict()
    for name in sorted(expected.keys() | state.keys()):
        if name not in state:
            raise RequestError("E_CHECKPOINT", f"{path}: lacks '{name}', which the recipe needs")
        if name not in expected:
            raise RequestError("E_CHECKPOINT", f"{path}: holds '{name}', unknown to the recipe")
        _compare(path, name, state[name], expected[name])
    model.load_state_dict(state)


def _compare(path: Path, name: str, found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise RequestError(
            "E_CHECKPOINT",
            f"{path}: '{name}' is {found.dtype} {list(found.shape)}; the recipe expects "
            f"{expected.dtype} {list(expected.shape)}",
        )
    if not bool(torch.isfinite(found).all()):
        raise RequestError("E_CHECKPOINT", f"{path}: '{name}' holds values that are not finite")


def load_run(run: Path) -> tuple[nn.Module, Recipe]:
    """The trained module of a run folder, on the CPU in evaluation, and its recipe.

    Raises RequestError: E_RECIPE, E_CHECKPOINT.
    """
    recipe = read_recipe(run / RECIPE)
    with torch.random.fork_rng(devices=[]):  # the drawn weights are overwritten
        model = build(recipe)
    load_state(model, run / MODEL)
    return model.eval(), recipe
