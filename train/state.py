"""A training between two updates, in memory and on disk: all that the rest of it depends on.

On disk it is one safetensors file: tensors by path, everything else as JSON in the header. One
file, so that it appears whole or not at all and its parts are of one moment; no pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .. import __version__
from ..errors import RequestError
from ..files import canonical_json, write_file
from .average import Average
from .energy import Price
from .optimise import optimiser
from .recipe import Recipe

_TENSOR = "tensor"
_CHOSEN = (("surrogate", "width"), ("train", "gain"))
"""What ``surrogate.width`` auto has chosen before training."""


@dataclass(frozen=True)
class Epoch:
    """One line of the history; accuracies 0 to 1, the training one over the batches as shown.

    ``seconds`` of the whole epoch, ``waited`` those in which no batch was ready; ``per_second``:
    images that the training used, ``ready_per_second``: those that the loader alone gets ready.
    """

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    seconds: float
    waited: float = 0.0
    per_second: float = 0.0
    ready_per_second: float = 0.0

    def __str__(self) -> str:
        checked = self.validation_accuracy
        return (
            f"epoch {self.epoch}: loss {self.loss:.4f}, train {self.train_accuracy:.2%}"
            + (f", validation {checked:.2%}" if checked is not None else "")
            + f", {self.seconds:.1f} s, {self.per_second:,.0f} images/s (the loader alone "
            f"{self.ready_per_second:,.0f})"
        )


@dataclass
class Tally:
    """The epoch under way, summed over its updates and over all processes."""

    updates: int = 0
    loss: float = 0.0
    correct: float = 0.0
    shown: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    worked: float = 0.0


@dataclass
class State:
    """A training between two updates.

    ``most``: validation samples that the best epoch had right, -1 before there is one;
    ``best_state``: that epoch's parameters and buffers. ``average`` and ``price`` are None where
    the recipe wants none.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    average: Average | None = None
    price: Price | None = None
    epochs: list[Epoch] = field(default_factory=list)
    best: int = 0
    most: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


def save_state(state: State, recipe: Recipe, path: Path) -> None:
    """Write it whole or not at all; CouldNotRunError (E_WRITE) where it cannot be written."""
    tensors: dict[str, Tensor] = {}
    document = {"version": __version__, "recipe": asdict(recipe), **_document(state)}
    plain = _apart(document, "", tensors)
    content = serialise(tensors, {"snnpipe": canonical_json(plain)})

    def write(beside: Path) -> None:
        beside.write_bytes(content)

    write_file(path, write)


def load_state(state: State, recipe: Recipe, path: Path) -> None:
    """Put a training back where ``path`` left it, torch's random generators too.

    Raises RequestError (E_RESUME) when the file is not one, or of another recipe or version, or
    names the first thing in which it is not of a training like the one that ``state`` begins.
    """
    document = _together(check_state(path, recipe), load_file(path))
    _check(path, document, state, recipe)
    state.model.load_state_dict(document["model"])
    _restore_optimizer(state.optimizer, document["optimizer"])
    state.schedule.load_state_dict(document["schedule"])
    if state.average is not None:
        state.average.load_state_dict(document["average"])
    if state.price is not None:
        state.price.load_state_dict(document["price"])
    state.epochs = [Epoch(**epoch) for epoch in document["epochs"]]
    state.best, state.most = document["best"], document["most"]
    device = _device(state.model)
    state.best_state = {name: value.to(device) for name, value in document["best_state"].items()}
    state.tally = Tally(**document["tally"])
    _set_random_state(document["random"], device)


def check_state(path: Path, recipe: Recipe) -> dict[str, Any]:
    """What a state holds besides tensors; raises as `load_state`, without the work."""
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})["snnpipe"])
        version = header["version"]
        found = {section: dict(part) for section, part in header["recipe"].items()}
    except (
        OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError
    ) as error:  # fmt: skip
        raise RequestError("E_RESUME", f"{path}: not a training state ({error!r})") from error
    if version != __version__:
        raise RequestError(
            "E_RESUME",
            f"{path}: written by snnpipe {version}; this is {__version__}, which may train "
            "otherwise",
        )
    same_recipe(recipe, found, path)
    return header


def same_recipe(recipe: Recipe, found: Mapping[str, Any], where: Path) -> None:
    """Raises RequestError (E_RESUME) naming the first field in which ``found`` differs.

    What a recipe leaves to be chosen before training is whatever was chosen.
    """
    chosen = _CHOSEN if recipe.surrogate.width == "auto" else ()
    for section, asked in asdict(recipe).items():
        there = found.get(section, {})
        for key in [*asked, *(there.keys() - asked.keys())]:
            ours, theirs = _plain(asked.get(key)), _plain(there.get(key))
            if ours != theirs and (section, key) not in chosen:
                raise RequestError(
                    "E_RESUME",
                    f"{where}: {section}.{key} was {theirs} in this training, the recipe says "
                    f"{ours}; go on with its own recipe, or train into a new folder",
                )


def _document(state: State) -> dict[str, Any]:
    return {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "average": None if state.average is None else state.average.state_dict(),
        "price": None if state.price is None else state.price.state_dict(),
        "epochs": [asdict(epoch) for epoch in state.epochs],
        "best": state.best,
        "most": state.most,
        "best_state": state.best_state,
        "tally": asdict(state.tally),
        "random": _random_state(_device(state.model)),
    }


def _check(path: Path, found: dict[str, Any], fresh: State, recipe: Recipe) -> None:
    """Hold what a file says against a training that begins, and what comes with its first steps
    against what such steps leave."""
    seen_to = {"version": "", "recipe": {}}  # by `check_state`
    _compare(path, "", found, {**_document(fresh), "random": {}, **seen_to})
    random, own = found["random"], _random_state(_device(fresh.model))
    known = {name: own.get(name, value) for name, value in random.items()}  # a GPU may be gone
    _compare(path, "random", random, {**known, "cpu": own["cpu"]})
    moved, first = found["optimizer"]["state"], _first_step(fresh.model, recipe)
    stepped = {key: of for key, of in first.items() if key in moved}  # the others had no gradient
    if moved:
        _compare(path, "optimizer/state", moved, stepped or first)
    if found["best_state"]:
        _compare(path, "best_state", found["best_state"], fresh.model.state_dict())
    for index, epoch in enumerate(found["epochs"]):
        _compare(path, f"epochs/{index}", epoch, asdict(Epoch(0, 0.0, 0.0, None, 0.0)))


def _first_step(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """What an optimiser keeps of each parameter that has been moved."""
    twins = nn.ParameterList([torch.zeros_like(one) for one in model.parameters()])
    for twin in twins:
        twin.grad = torch.zeros_like(twin)
    optimizer = optimiser(twins, recipe.train)
    optimizer.step()
    return {str(index): of for index, of in optimizer.state_dict()["state"].items()}


def _compare(path: Path, name: str, found: Any, expected: Any) -> None:
    """Raises RequestError (E_RESUME) for the first name, shape or kind of value that differs; an
    empty mapping or list stands for any, None for nothing or a number."""
    kinds = _kind(found), _kind(expected)
    if kinds[0] != kinds[1] and not (expected is None and kinds[0] == "a number"):
        raise RequestError("E_RESUME", f"{path}: '{name}' is {kinds[0]}, expected {kinds[1]}")
    below, theirs = _items(expected), _items(found)
    for key in [*below, *theirs] if below else ():
        inner = f"{name}/{key}".removeprefix("/")
        if key not in theirs:
            raise RequestError("E_RESUME", f"{path}: lacks '{inner}', which this training needs")
        if key not in below:
            raise RequestError("E_RESUME", f"{path}: holds '{inner}', unknown to this training")
        _compare(path, inner, theirs[key], below[key])


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else "a text" if isinstance(value, str) else "a number"


def _items(value: Any) -> dict[str, Any]:
    """What is in a mapping or a list, by its name in a path."""
    if isinstance(value, list | tuple):
        return {str(index): item for index, item in enumerate(value)}
    return dict(value) if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
    """A field as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _random_state(device: torch.device) -> dict[str, Tensor]:
    found = {"cpu": torch.random.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def _set_random_state(found: Mapping[str, Tensor], device: torch.device) -> None:
    torch.random.set_rng_state(found["cpu"])
    if device.type == "cuda" and "cuda" in found:
        torch.cuda.set_rng_state(found["cuda"], device)


def _restore_optimizer(optimizer: Optimizer, found: Mapping[str, Any]) -> None:
    """Its state, each tensor laid out in memory as its parameter: fused steps walk both as one."""
    optimizer.load_state_dict(
        {**found, "state": {int(index): of for index, of in found["state"].items()}}
    )
    for parameter, of in optimizer.state.items():
        for name, value in of.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                of[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _apart(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON takes it, its tensors put aside under their path."""
    if isinstance(value, Tensor):
        name = path.removesuffix("/")
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {str(key): _apart(item, f"{path}{key}/", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_apart(item, f"{path}{index}/", tensors) for index, item in enumerate(value)]
    return value


def _together(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_apart` took apart; tuples come back as lists, keys as text."""
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors.get(str(value[_TENSOR]))
        return {key: _together(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_together(item, tensors) for item in value]
    return value
