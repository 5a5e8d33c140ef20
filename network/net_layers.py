"""The layers of a `.net` file as they stand in it: types, shapes, whole numbers, each checked.

Lava's network exchange format is HDF5: a group ``layer`` whose members are called 0, 1, 2, …, all
values data sets. What another reader skips in silence is refused or noted here. Facts about the
format: `slayer/block/base.py` and `netx/hdf5.py` of lava-dl 0.6.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .layers import Pair, Shape
from .loihi import THRESHOLD_MAX
from .node_fields import Field, Value, pair, real, sizes

LAST_THRESHOLD = THRESHOLD_MAX
"""The largest of a chip's field: used to say that a neuron never fires."""
MOST_STEPS = 1_000_000

Whole = NDArray[np.int64]

_BEYOND = "read the layers in front of it with --layers"
REFUSED: Mapping[str, str] = {
    "pool": f"pooling is not in lava-dl's own reader either; {_BEYOND}",
    "convT": f"transposed convolutions are not run; {_BEYOND}",
    "unpool": f"unpooling is not run; {_BEYOND}",
    "average": f"it averages outputs over groups or time, outside a chip; {_BEYOND}",
    "concat": f"branches are not run from this format; {_BEYOND}",
    "dense_comp": "complex weights belong to resonators, which are not run",
}
"""Types of layers that are known and not run."""


@dataclass(frozen=True)
class NetNeuron:
    """A LOIHI or CUBA neuron: what current and membrane lose per step in 1/4096, and the
    threshold in weight units."""

    current_decay: int
    decay: int
    threshold: int


@dataclass(frozen=True, eq=False)
class NetLayer:
    """One layer. ``weight``: (out, in), or (Cout, Cin/groups, KH, KW); ``delay``: broadcasts
    against it; ``image``: weight and bias that make a bias of an image's pixel."""

    index: int
    kind: str
    shape: Shape
    neuron: NetNeuron | None = None
    weight: Whole | None = None
    recurrent: Whole | None = None
    bias: Whole | None = None
    delay: Whole | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    image: tuple[float, float] = (64.0, 0.0)

    @property
    def name(self) -> str:
        """What the layer is called in the network."""
        return f"layer{self.index}"


@dataclass
class Group:
    """A group of the file: what was asked for is remembered, so that the rest can be noted."""

    content: Mapping[str, Any]
    place: str
    asked: set[str] = field(default_factory=set)

    def error(self, code: str, text: str) -> RequestError:
        """An error at this place."""
        return RequestError(code, f"{self.place} {text}")

    def get(self, key: str, form: Field) -> NDArray[Any] | None:
        """A value in one form, None where there is none."""
        self.asked.add(key)
        if key not in self.content:
            return None
        return self._formed(f"{self.place}/{key}", lambda: form(self.content[key]))

    def need(self, key: str, form: Field) -> NDArray[Any]:
        """A value that must be there."""
        found = self.get(key, form)
        if found is None:
            raise RequestError("E_PARAM", f"{self.place}/{key} is missing")
        return found

    def number(self, key: str, low: int, high: int, usual: int | None = None) -> int:
        """One whole number of any type; ``usual`` where there is none, else it must be there."""
        if usual is not None and key not in self.content:
            self.asked.add(key)
            return usual
        return int(self.need(key, _one(low, high)))

    def text(self, key: str) -> str:
        """One text, alone or in an array."""
        self.asked.add(key)
        found = self.content.get(key)
        if isinstance(found, np.ndarray) and found.dtype == object and found.size == 1:
            found = found.reshape(())[()]
        if not isinstance(found, str):
            what = "is missing" if found is None else "is no text"
            raise RequestError("E_PARAM", f"{self.place}/{key} {what}; expected one text")
        return found

    def group(self, key: str) -> Group | None:
        """A group inside; None where there is none."""
        self.asked.add(key)
        found = self.content.get(key)
        if found is None:
            return None
        if not isinstance(found, Mapping):
            raise RequestError("E_PARAM", f"{self.place}/{key} is a data set; expected a group")
        return Group(found, f"{self.place}/{key}")

    def same(self, key: str, expected: int) -> None:
        """A number that repeats what the weights say."""
        if self.number(key, 1, 2**31, expected) != expected:
            raise RequestError(
                "E_SHAPE",
                f"{self.place}/{key} is {self.number(key, 1, 2**31)}; the weights say {expected}",
            )

    def unread(self) -> list[str]:
        """Members that nobody asked for."""
        return [f"{self.place}/{name}" for name in self.content if name not in self.asked]

    def _formed(self, place: str, form: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        try:
            return form()
        except RequestError as error:
            raise RequestError(error.code, f"{place} {error.message}") from None


def _wholes(value: Value) -> Whole:
    """Whole numbers of any type."""
    numbers = real(value)
    bad = numbers != np.rint(numbers)
    if bad.any():
        raise RequestError(
            "E_VALUE",
            f"holds {numbers[bad].flat[0]:.9g}; expected whole numbers, others would be cut off",
        )
    if abs(numbers).max() > 2**31:
        raise RequestError("E_VALUE", f"holds {abs(numbers).max():.9g}; expected less than 2^31")
    return numbers.astype(np.int64)


def _one(low: int, high: int) -> Field:
    def parse(value: Value) -> NDArray[Any]:
        number = _wholes(value)
        if number.size != 1:
            raise RequestError("E_SHAPE", f"has shape {list(number.shape)}; expected one number")
        if not low <= int(number.flat[0]) <= high:
            raise RequestError("E_VALUE", f"is {number.flat[0]}; expected {low} to {high}")
        return number.reshape(())

    return parse


def _single(value: Value) -> NDArray[Any]:
    number = real(value)
    if number.size != 1:
        raise RequestError("E_SHAPE", f"has shape {list(number.shape)}; expected one number")
    return number.reshape(())


def _plain(numbers: NDArray[Any], rank: int) -> NDArray[Any]:
    """Trailing axes of length 1 beyond ``rank`` taken off; slayer writes them."""
    while numbers.ndim > rank and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    return numbers


def _matrix(group: Group, key: str, out: int) -> Whole:
    """(out, in), trailing ones or all in one row."""
    raw = group.need(key, _wholes)
    weight = _plain(raw, 2)
    if weight.ndim == 1 and not weight.size % out:
        weight = weight.reshape(out, -1)
    if weight.ndim != 2 or len(weight) != out:
        raise RequestError(
            "E_SHAPE",
            f"{group.place}/{key} has shape {list(raw.shape)}; expected [{out}, inputs] or as "
            "many numbers in a row",
        )
    return np.asarray(weight)


def _kernels(group: Group, shape: Shape) -> Whole:
    raw = group.need("weight", _wholes)
    weight = _plain(raw, 4)
    if weight.ndim != 4 or len(weight) != shape[0]:
        raise RequestError(
            "E_SHAPE",
            f"{group.place}/weight has shape {list(raw.shape)}; expected [{shape[0]}, channels, "
            "height, width], with a trailing 1 or without",
        )
    return np.asarray(weight)


def _bias(group: Group, out: int) -> Whole | None:
    raw = group.get("bias", _wholes)
    if raw is None:
        return None
    bias = _plain(raw, 1)
    if bias.size == 1:
        bias = np.full(out, bias.reshape(()))
    if bias.shape != (out,):
        raise RequestError(
            "E_SHAPE",
            f"{group.place}/bias has shape {list(raw.shape)}; expected one number, or {out}",
        )
    return np.asarray(bias, np.int64)


def _delay(group: Group, weight: Whole) -> Whole | None:
    """Delays that broadcast against the weights: one, one a neuron, one an input, one a weight.

    As many neurons as inputs: a row of delays is taken for the neurons, as netx does.
    """
    raw = group.get("delay", _wholes)
    if raw is None:
        return None
    if raw.min() < 0:
        raise RequestError("E_VALUE", f"{group.place}/delay holds {raw.min()}; expected 0 or more")
    delay = _plain(raw, 1) if raw.shape != weight.shape else raw
    out, inputs = weight.shape
    if delay.size == 1:
        return delay.reshape(1, 1)
    if delay.shape == (out,):
        return delay.reshape(out, 1)
    if delay.shape == (inputs,):
        return delay.reshape(1, inputs)
    if delay.shape != weight.shape:
        raise RequestError(
            "E_SHAPE",
            f"{group.place}/delay has shape {list(raw.shape)}; expected one number, {out} (one a "
            f"neuron), {inputs} (one an input) or {[out, inputs]}",
        )
    return delay


def _neuron(group: Group | None) -> NetNeuron | None:
    if group is None:
        return None
    kind = group.text("type")
    if kind not in ("LOIHI", "CUBA"):
        known = {"SDNN": "sigma-delta neurons send graded values, which are not run"}
        resonator = "resonators (RF) are not run" if "RF" in kind else "expected LOIHI or CUBA"
        raise group.error("E_UNSUPPORTED", f"is of type {kind!r}: {known.get(kind, resonator)}")
    limits = {
        "refDelay": (1, "refractory steps are not run, and netx leaves them out"),
        "wgtExp": (0, "an exponent of all weights is not run, and netx leaves it out"),
        "weight_exp": (0, "a normalisation's exponent is not run, and netx leaves it out"),
        "gradedSpike": (0, "graded spikes are not run, and netx leaves them out"),
    }
    for key, (usual, why) in limits.items():
        if (found := group.number(key, -(2**31), 2**31, usual)) != usual:
            raise RequestError(
                "E_UNSUPPORTED", f"{group.place}/{key} is {found}; expected {usual}: {why}"
            )
    group.asked |= {"theta", "tauRho", "scaleRho", "messageBits"}  # of training; spikes are 1 bit
    return NetNeuron(
        group.number("iDecay", 0, 4096),
        group.number("vDecay", 0, 4096),
        group.number("vThMant", 0, 2**18),
    )


def parse_layer(index: int, group: Group) -> tuple[NetLayer, list[str]]:
    """One layer, and what there is to note: members that were not read, and those that netx needs.

    Raises RequestError: E_PARAM, E_SHAPE, E_VALUE, E_DTYPE; E_UNSUPPORTED for a type of layer or
    neuron that is not run.
    """
    kind = group.text("type")
    if kind not in ("input", "dense", "dense_rec", "conv", "flatten"):
        reason = REFUSED.get(kind, "nobody knows this type")
        raise group.error("E_UNSUPPORTED", f"is a layer of type {kind[:40]!r}: {reason}")
    shape: Shape = tuple(group.need("shape", sizes).tolist())
    neurons = group.group("neuron")
    found: dict[str, Any] = {"shape": shape, "neuron": _neuron(neurons)}
    if kind == "input":
        for at, key in enumerate(("weight", "bias")):
            given = group.get(key, _single)
            if given is not None:
                image = list(found.get("image", NetLayer.image))
                image[at] = float(given)
                found["image"] = tuple(image)
    elif kind == "conv":
        found |= _convolution(group, shape)
    elif kind != "flatten":
        found |= _dense(group, shape, recurrent=kind == "dense_rec")
    left = group.unread() + ([] if neurons is None else neurons.unread())
    notes = [f"{name} is in the file, and nothing here reads it" for name in left]
    if kind == "conv":
        missing = [name for name in _NEEDED if name not in group.content]
        notes += [f"{group.place} says nothing of its {name}; netx asks for it" for name in missing]
        if np.size(group.content.get("bias", ())) == 1 < len(found["weight"]):
            notes.append(f"{group.place}/bias is one for all channels, which netx cannot load")
    elif "weight" in found and np.ndim(group.content["weight"]) > 2:
        notes.append(f"{group.place}/weight has trailing axes, which netx cannot load")
    return NetLayer(index, kind, **found), notes


_NEEDED = ("stride", "padding", "dilation", "groups")


def _convolution(group: Group, shape: Shape) -> dict[str, Any]:
    if len(shape) != 3:
        raise group.error("E_SHAPE", f"has shape {list(shape)}; expected [C, H, W]")
    weight = _kernels(group, shape)
    found: dict[str, Any] = {"weight": weight, "bias": _bias(group, shape[0])}
    # One delay a channel, or one: what a column of weights (Cout, 1) says of a matrix.
    delay = _delay(group, weight.reshape(len(weight), -1)[:, :1])
    found["delay"] = None if delay is None else delay.reshape(-1, 1, 1, 1)
    for key, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
        numbers = group.get(key, pair(least))
        if numbers is not None:
            found[key] = (int(numbers[0]), int(numbers[1]))
    found["groups"] = group.number("groups", 1, 2**20, 1)
    group.same("outChannels", len(weight))
    group.same("inChannels", weight.shape[1] * found["groups"])
    kernel = group.get("kernelSize", pair(1))
    if kernel is not None and tuple(kernel.tolist()) != weight.shape[2:]:
        raise RequestError(
            "E_SHAPE",
            f"{group.place}/kernelSize is {kernel.tolist()}; the weights say "
            f"{list(weight.shape[2:])}",
        )
    return found


def _dense(group: Group, shape: Shape, recurrent: bool) -> dict[str, Any]:
    if isinstance(group.content.get("weight"), Mapping):
        raise group.error("E_UNSUPPORTED", f"has complex weights: {REFUSED['dense_comp']}")
    out = int(np.prod(shape))
    weight = _matrix(group, "weight", out)
    found: dict[str, Any] = {"weight": weight, "bias": _bias(group, out)}
    found["delay"] = _delay(group, weight)
    if recurrent:
        found["recurrent"] = _matrix(group, "weight_rec", out)
        if found["recurrent"].shape != (out, out):
            raise RequestError(
                "E_SHAPE",
                f"{group.place}/weight_rec has shape {list(found['recurrent'].shape)}; expected "
                f"{[out, out]}",
            )
    group.same("outFeatures", out)
    group.same("inFeatures", weight.shape[1])
    return found
