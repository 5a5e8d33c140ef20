"""Training inputs of a run on which scales are chosen: drawn once, found again by their rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RequestError
from .export.flips import SAMPLES, Calibration
from .runs import Place


def draw(where: Place, data_folder: Path | None) -> Calibration | None:
    """Training inputs of a run, those that its training held out first; None for a bare file.

    Always the same rows. Raises what reading the data set raises.
    """
    if not (where.is_run and where.recipe.is_file()):
        return None
    from .train.dataset import mixed
    from .train.examples import hold_out
    from .train.recipe_file import read_recipe

    recipe = read_recipe(where.recipe, ())
    source, stored, labels = _training(where, data_folder)
    limit = recipe.train.limit or len(labels)
    places: Any = np.arange(len(labels))[:limit]
    kept, held = hold_out((places, labels[:limit]), recipe.data.validation, recipe.train.seed)
    parts: list[Any] = [part[0][mixed(len(part[0]))] for part in (held, kept)]
    rows = np.concatenate(parts)[:SAMPLES]
    return _calibration(source, stored, rows)


def again(where: Place, data_folder: Path | None, record: Mapping[str, Any]) -> Calibration:
    """The inputs that a manifest names.

    Raises RequestError (E_STALE) where they are not what they were, and what reading raises.
    """
    source, stored, labels = _training(where, data_folder)
    rows = record.get("rows")
    if not isinstance(rows, list) or not all(
        isinstance(row, int) and 0 <= row < len(labels) for row in rows
    ):
        raise RequestError(
            "E_STALE", f"{where.folder}: the calibration names no rows of the {source}"
        )
    found = _calibration(source, stored, np.array(rows, np.int64))
    if found.to_dict() != record:
        raise RequestError(
            "E_STALE",
            f"{where.folder}: the calibration inputs are not those of the {source} as it is read "
            "now; export it again",
        )
    return found


def _training(where: Place, data_folder: Path | None) -> tuple[str, Any, NDArray[np.int64]]:
    from .train.coding import seen
    from .train.recipe_file import read_recipe

    recipe = read_recipe(where.recipe, ())
    stored, labels = seen(recipe).load(data_folder, "train", recipe.train.steps)
    return f"training set of {recipe.data.name}", stored, labels


def _calibration(source: str, stored: Any, rows: NDArray[np.int64]) -> Calibration:
    from .train.dataset import read

    return Calibration(read(stored[rows]), source, tuple(rows.tolist()))
