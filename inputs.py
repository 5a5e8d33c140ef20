"""What commands are given: how to read a network file, and the samples to run it on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import overview
from .console import say
from .errors import RequestError
from .network.axes import arranged
from .network.contract import Compare, InputCoding, Reset
from .network.hdf5 import Limits
from .network.layers import Network
from .network.net_file import Drive, NetFile, NetReading, read_net
from .network.nir_file import read_network
from .network.semantics import Semantics, named
from .runs import Place

if TYPE_CHECKING:
    from .verify.recording import Recording

POINTS = ("dt", "compare", "reset", "coding")
"""What an option may change of a semantics."""
OF_NET = ("drive", "levels", "layers")
"""What an option says of a .net file only."""
NET = ".net"


@dataclass(frozen=True)
class TestSet:
    """Stored inputs (B, *stored_shape), labels int64 (B,) where there are any, and where they come
    from."""

    x: NDArray[Any]
    labels: NDArray[np.int64] | None
    source: str


@dataclass(frozen=True)
class Random:
    """Random inputs: how many, from which seed, and the share of numbers that are not 0."""

    samples: int = 8
    seed: int = 0
    density: float = 0.5

    def draw(self, network: Network) -> tuple[NDArray[Any], str]:
        """Stored inputs of a network, and what they are called."""
        rng = np.random.default_rng(self.seed)
        shape = (self.samples, *network.stored_shape)
        x = rng.integers(1, network.contract.input_levels + 1, shape)
        x *= rng.random(shape) < self.density
        return x, f"{self.samples} random inputs, {self.density:g} not 0, seed {self.seed}"


@dataclass(frozen=True)
class Recorded:
    """A recording from elsewhere: its file, its axes in letters, and of which layer it is, where
    that is said."""

    path: Path
    axes: str | None
    layer: str | None

    def read(self, network: Network) -> Recording:
        """The recording of a network; RequestError (E_TRACE, E_AXES)."""
        from .verify.recording import read_recording

        return read_recording(self.path, network, self.axes, self.layer)


@dataclass(frozen=True)
class Reading:
    """How to read a file: under a named semantics, single points of it changed, and for how many
    steps, when it brings no contract; and what it may ask for. The points of a .net file are those
    of `NetReading`."""

    semantics: str | None = None
    steps: int | None = None
    dt: float | None = None
    compare: Compare | None = None
    reset: Reset | None = None
    coding: InputCoding | None = None
    drive: Drive | None = None
    levels: int | None = None
    layers: int | None = None
    limits: Limits = field(default_factory=Limits)

    def hold_points(self) -> None:
        """Single points are changed of a semantics that is named; RequestError (E_SEMANTICS)."""
        changed = [f"--{point}" for point in POINTS if getattr(self, point) is not None]
        if changed and self.semantics is None:
            raise RequestError(
                "E_SEMANTICS", f"{changed[0]} changes a point of a semantics: name one, --semantics"
            )

    def words(self, path: Path) -> str:
        """The options that read a file so, for a command line; begins with a space."""
        open_ = self.semantics is not None or path.suffix == NET
        points = ("semantics", "steps", *POINTS, *OF_NET) if open_ else ()
        given = ((point, getattr(self, point)) for point in points)
        said = "".join(f" --{point} {value}" for point, value in given if value is not None)
        usual = asdict(Limits())
        raised = ((k, v) for k, v in asdict(self.limits).items() if v != usual[k])
        return said + "".join(f" --limit {name}={number}" for name, number in raised)

    @property
    def chosen(self) -> Semantics | None:
        """The semantics with its changes; RequestError (E_SEMANTICS)."""
        self.hold_points()
        for name in OF_NET:
            if getattr(self, name) is not None:
                raise RequestError("E_SEMANTICS", f"--{name} is for .net files")
        if self.semantics is None:
            return None
        return named(self.semantics, self.dt, self.compare, self.reset, self.coding)

    def hold_steps(self, network: Network) -> None:
        """A file with a contract says itself how long it runs; RequestError (E_STEPS)."""
        steps = network.contract.steps
        if self.semantics is None and self.steps not in (None, steps):
            raise RequestError(
                "E_STEPS", f"the contract says T = {steps}; --steps is for files without one"
            )

    def read_net(self, path: Path) -> NetFile:
        """A .net file, and what there is to say of it; RequestError (E_SEMANTICS, E_STEPS, …)."""
        for point in ("dt", "compare", "reset"):
            if getattr(self, point) is not None:
                raise RequestError(
                    "E_SEMANTICS", f"--{point} is for .nir files; a .net is read as lava or slayer"
                )
        own = NetReading(
            self.semantics or "lava",
            self.steps,
            self.drive or "image",
            self.coding or "events",
            self.levels or 1,
            self.layers,
        )
        return read_net(path, own, self.limits)

    def facts(self, path: Path, network: Network, x: NDArray[Any]) -> dict[str, Any]:
        """What a report says of a .net file beside its verdict: remarks, and the decisions on
        which its two semantics differ. Empty for other files."""
        if path.suffix != NET:
            return {}
        from .verify.ties import ties

        found = ties(network, x)
        said = ", ".join(f"{name} {count:,}" for name, count in found.items() if count)
        said_so = replace(self, semantics=self.semantics or "lava").words(path).strip()
        return {
            "read with": said_so,
            "remarks": list(self.read_net(path).remarks),
            "decisions at the threshold, on which lava and slayer differ": said or "none",
        }

    def read(self, path: Path) -> Network:
        """The network of a file. Where neither contract nor semantics says how to read it, the
        table of what is open goes before the error (E_NO_CONTRACT); E_STEPS without a T."""
        if path.suffix == NET:
            return self.read_net(path).network
        if self.semantics is not None and self.steps is None:
            raise RequestError(
                "E_STEPS", "a file without a contract does not say how long to run: --steps T"
            )
        try:
            network = read_network(path, self.chosen, self.limits)
        except RequestError as error:
            if error.code == "E_NO_CONTRACT":
                for line in overview.lines(overview.overview(path, self)):
                    say(line)
            raise
        if self.semantics is None or self.steps is None:
            return network
        return network.with_contract(replace(network.contract, steps=self.steps))


def first_samples(x: NDArray[Any], samples: int | None, network: Network) -> NDArray[Any]:
    """The first samples of inputs (B, *shape), (T, B, *shape), or events (B, T, *shape)."""
    moving = x.ndim == len(network.input_shape) + 2
    time_first = moving and network.contract.input_coding != "events"
    return x[:, :samples] if time_first else x[:samples]


def read_array(file: Path) -> NDArray[Any]:
    """A .npy file of numbers; RequestError (E_INPUT) when it is not one."""
    try:
        with file.open("rb") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RequestError("E_INPUT", f"{file}: not a readable .npy file ({error})") from error
    if array.dtype.kind not in "iufb":
        raise RequestError("E_INPUT", f"{file}: an array of numbers is expected")
    if not array.ndim or not array.size:
        raise RequestError("E_INPUT", f"{file}: the array has shape {list(array.shape)}")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def read_inputs(file: Path, network: Network, axes: str | None) -> NDArray[Any]:
    """Inputs from a file, as `frames` of the network takes them; with ``axes`` in their letters.

    Raises RequestError (E_INPUT, E_AXES).
    """
    array = read_array(file)
    if axes is None:
        return array
    try:
        found = arranged(array, axes, network.input_shape)
    except RequestError as error:
        raise RequestError(error.code, f"{file}: {error.message}") from error
    if network.contract.input_coding == "events":
        if "t" not in axes:
            raise RequestError("E_AXES", f"{file}: a frame a step is expected, and no axis is t")
        return np.ascontiguousarray(found.swapaxes(0, 1))
    return found if "t" in axes else np.ascontiguousarray(found[0])


def test_set(
    where: Place,
    network: Network,
    files: tuple[Path | None, Path | None],
    data_folder: Path | None,
    samples: int | None,
    random: Random,
    axes: str | None = None,  # noqa: PT028 - a set of tests, not a test
) -> TestSet:
    """The samples to verify on: the ``files`` of inputs and labels named, or the test set of the
    run's recipe, the first ``samples`` of them; without either random inputs, without labels."""
    inputs_file, labels_file = files
    labels: NDArray[Any] | None = None
    if inputs_file is None and labels_file is not None:
        raise RequestError("E_INPUT", f"{labels_file}: labels without --inputs")
    if inputs_file is not None:
        x, source = read_inputs(inputs_file, network, axes), str(inputs_file)
        labels = None if labels_file is None else read_array(labels_file)
    elif where.is_run and where.recipe.is_file():
        from .train.coding import seen
        from .train.dataset import read
        from .train.recipe_file import read_recipe

        recipe = read_recipe(where.recipe, ())
        stored, labels = seen(recipe).load(data_folder, "test", recipe.train.steps)
        x, labels = read(stored[:samples]), labels[:samples]
        source = f"test set of {recipe.data.name}"
    else:
        x, source = random.draw(network)
    if x.shape[1:] != network.stored_shape or not len(x):
        one = ", ".join(map(str, network.stored_shape))
        raise RequestError(
            "E_INPUT", f"the inputs have shape {list(x.shape)}; expected [B, {one}], B 1 or more"
        )
    if labels is None:
        return TestSet(x[:samples], None, source)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(x):
        raise RequestError(
            "E_INPUT",
            f"the labels have shape {list(labels.shape)} and dtype {labels.dtype}; one whole "
            f"number for each of the {len(x)} inputs is expected",
        )
    return TestSet(x[:samples], labels[:samples].astype(np.int64), source)
