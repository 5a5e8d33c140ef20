"""Damages NIR files and reads them, in a process of its own with little memory and time.

    python tests/fuzz_nir.py FOLDER FIRST COUNT [CORPUS]

Files FIRST to FIRST + COUNT - 1 are made in FOLDER one after the other; each depends on its number
alone. A file is one of ours, or of the folder CORPUS, with one to three edits. Reading it must give
a RequestError (one line that begins with the file) or a network that runs, with no warning, in 2
seconds of processor time and 1 GiB of memory more than the libraries take. Prints what became of
each file; ends at the first that breaks this and leaves it in FOLDER as ``damaged.nir``.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from integer_networks import integer_networks
from nir_graphs import chain, feed_forward, graph, lif, linear, port, write
from random_networks import networks
from small_network import small_network
from snnpipe.errors import RequestError
from snnpipe.network.nir_file import read_network, write_network
from snnpipe.network.node_types import TYPES
from snnpipe.network.semantics import PRESETS, readable
from snnpipe.network.simulate import simulate

SECONDS, MEMORY = 2.0, 2**30
SMALL = 20_000
"""Most neurons of a network that is run."""
TEXT = h5py.string_dtype()
SEMANTICS = [None, *(name for name in PRESETS if name in readable())]

Rng = np.random.Generator
Edit = Callable[[h5py.File, Rng], None]


def own_files(folder: Path) -> list[bytes]:
    """Files that we write, and two of other programs: small, recurrent, integer, nested."""
    drawn = [small_network()]
    for strategy, count in ((networks(graded=True), 12), (integer_networks(), 2)):

        @given(strategy)
        @settings(
            max_examples=count,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def collect(network: Any) -> None:
            drawn.append(network)

        collect()
    path = folder / "made.nir"
    files = []
    for network in drawn:
        write_network(network, path)
        files.append(path.read_bytes())
    inner = {"in": port("Input", 4), "lif": lif(4), "back": linear(4, 4), "end": port("Output", 4)}
    nested = feed_forward(rec=graph(inner, [*chain("in lif end"), *chain("lif back lif")]))
    nested["edges"] = chain("input w rec lif v out output")
    for node in (feed_forward(), nested):
        files.append(write(path, node).read_bytes())
    return files


# --- edits ---


def pick(rng: Rng, choices: Any) -> Any:
    """One of a sequence."""
    return choices[int(rng.integers(len(choices)))]


def objects(file: h5py.File, wanted: Callable[[Any], bool] = lambda item: True) -> list[str]:
    """The paths of all objects of a kind, sorted."""
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if wanted(item) else None)
    return sorted(found)


def is_numbers(item: Any) -> bool:
    """Whether an object is a data set of numbers, not claimed but there."""
    numbers = isinstance(item, h5py.Dataset) and item.shape is not None and item.size < 2**24
    return numbers and item.dtype.kind in "fiub"


def is_text(item: Any) -> bool:
    """Whether an object is a data set of one text."""
    return isinstance(item, h5py.Dataset) and item.shape == () and item.dtype.kind == "O"


def replace(file: h5py.File, place: str, value: Any, **options: Any) -> None:
    """Put another data set in a place."""
    del file[place]
    file.create_dataset(place, data=value, **options)


def delete(file: h5py.File, rng: Rng) -> None:
    """Take an object away."""
    del file[pick(rng, objects(file))]


def dtype(file: h5py.File, rng: Rng) -> None:
    """Numbers as another type."""
    place = pick(rng, objects(file, is_numbers))
    kind = pick(rng, ["f2", "f4", ">f4", "f8", ">f8", "i1", "u8", ">i4", "?", "c8", "S4", "V8"])
    values = file[place][()]
    with np.errstate(all="ignore"):
        cast = np.zeros(np.shape(values), kind) if kind == "V8" else np.asarray(values).astype(kind)
    replace(file, place, cast)


def shape(file: h5py.File, rng: Rng) -> None:
    """Numbers in another shape."""
    place = pick(rng, objects(file, is_numbers))
    values = np.asarray(file[place][()])
    forms: list[Callable[[], Any]] = [
        lambda: values.reshape(-1),
        lambda: values[..., np.newaxis],
        lambda: values[np.newaxis],
        lambda: values.T,
        lambda: values.reshape(-1)[:1],
        lambda: values.reshape(-1)[0],
        lambda: values.reshape(-1)[:0],
        lambda: np.concatenate([values.reshape(-1)] * 2),
        lambda: np.zeros((3,) * 9, values.dtype),
        lambda: h5py.Empty(values.dtype),
    ]
    number = int(rng.integers(len(forms) + 1))
    if number < len(forms):
        replace(file, place, forms[number]())
    else:
        del file[place]
        file.create_dataset(place, (2**20, 2**12), values.dtype, chunks=(64, 64))


def value(file: h5py.File, rng: Rng) -> None:
    """One number among others."""
    place = pick(rng, objects(file, is_numbers))
    values = np.array(file[place][()])
    odd = [0, 1, -1, 2, 7, 1e-30, 1e-4, 1e30, np.nan, np.inf, -np.inf, 2**31, 2**62, 1e300]
    if values.size:
        with np.errstate(all="ignore"):
            values.flat[int(rng.integers(values.size))] = np.array(pick(rng, odd)).astype(
                values.dtype
            )
    replace(file, place, values)


def edge_lists(file: h5py.File) -> list[str]:
    """Paths of all lists of edges."""
    return objects(file, lambda item: isinstance(item, h5py.Dataset) and item.ndim == 2
                   and item.dtype.kind == "O")  # fmt: skip


def edges(file: h5py.File, rng: Rng) -> None:
    """Turn an edge round, swap two ends, double, drop or add one, or mix all."""
    if not (places := edge_lists(file)):
        return
    place = pick(rng, places)
    pairs = [[a.decode(), b.decode()] for a, b in file[place][()]]
    names = sorted({end for pair in pairs for end in pair})
    one, other = pick(rng, pairs), pick(rng, pairs)
    kind = int(rng.integers(6))
    if kind == 0:
        one.reverse()
    elif kind == 1:
        one[1], other[1] = other[1], one[1]
    elif kind == 2:
        pairs.append(one)
    elif kind == 3:
        pairs.remove(one)
    elif kind == 4:
        pairs.append([pick(rng, names), pick(rng, names)])
    else:
        rng.shuffle(pairs)
    replace(file, place, np.array(pairs, object).reshape(-1, 2), dtype=TEXT)


NAMES = [
    "a b",
    "größe",
    "...",
    "x" * 150,
    "x" * 300,
    "input",
    "output",
    "10",
    "a\nb",
    "漢",
    "lif.in",
]


def rename(file: h5py.File, rng: Rng) -> None:
    """A node under another name, here and there in the edges too."""
    nodes = objects(file, lambda item: isinstance(item, h5py.Group) and "type" in item)
    if not nodes:
        return
    old = pick(rng, nodes)
    parent, _, name = old.rpartition("/")
    new = pick(rng, NAMES)
    if parent and f"{parent}/{new}" not in file:
        file.move(old, f"{parent}/{new}")
        if rng.random() < 0.7:
            for place in edge_lists(file):
                pairs = [[new if e.decode() == name else e.decode() for e in pair]
                         for pair in file[place][()]]  # fmt: skip
                replace(file, place, pairs, dtype=TEXT)


TEXTS = [
    "",
    "same",
    "valid",
    "NIRGraph",
    "I",
    "1.0.8",
    "a\nb",
    "ü" * 9,
    "x" * 3000,
    "{}",
    "[]",
    "0",
]
ODD: list[Any] = [None, 0, -1, 1.5, 10**30, "", "a\nb", "\ud800", [], {}, [[]], True, ["a", "b"]]


def text(file: h5py.File, rng: Rng) -> None:
    """A type, the version, the contract: another text, or one value in its JSON."""
    if not (places := objects(file, is_text)):
        return
    contracts = [place for place in places if place.endswith("snnpipe_contract")]
    place = pick(rng, contracts if contracts and rng.random() < 0.5 else places)
    old = file[place][()].decode("utf-8", "replace")
    try:
        data = json.loads(old)
    except ValueError:
        data = None
    if isinstance(data, dict) and data:
        holder: Any = data
        while True:
            key = pick(rng, sorted(holder) if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[key], dict | list) or not holder[key] or rng.random() < 0.3:
                break
            holder = holder[key]
        holder[key] = pick(rng, ODD)
        new = json.dumps(data)
        new = new[: int(rng.integers(len(new)))] if rng.random() < 0.1 else new
    else:
        new = pick(rng, [*TEXTS, *TYPES])
    replace(file, place, new, dtype=TEXT)


EDITS: list[Edit] = [delete, dtype, shape, value, edges, rename, text]


def flipped(content: bytes, rng: Rng) -> bytes:
    """A few bytes changed, anywhere in the file."""
    damaged = bytearray(content)
    for at in rng.integers(0, len(damaged), int(rng.integers(1, 9))):
        damaged[at] ^= int(rng.integers(1, 256))
    return bytes(damaged)


def damage(path: Path, content: bytes, rng: Rng) -> None:
    """Write the content with one to three edits; bytes are flipped last."""
    path.write_bytes(content)
    chosen = rng.integers(0, len(EDITS) + 1, int(rng.integers(1, 4))).tolist()
    for number in chosen:
        if number < len(EDITS):
            with h5py.File(path, "a") as file:
                if "node" in file and objects(file, is_numbers):
                    EDITS[number](file, rng)
    if len(EDITS) in chosen:
        path.write_bytes(flipped(path.read_bytes(), rng))


# --- reading ---


def outcome(path: Path, semantics: str | None) -> str:
    """The code with which a file is refused, or that it is read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            network = read_network(path, semantics)
    except RequestError as error:
        message = error.message
        if not message.startswith(f"{path}: ") or not message.isprintable() or len(message) > 1000:
            raise ValueError(
                f"not one short line that begins with the file: {message!r}"
            ) from error
        return error.code
    if sum(layer.size for layer in network.layers) + int(np.prod(network.input_shape)) > SMALL:
        return "read"
    with np.errstate(all="ignore"):
        simulate(network, np.ones((1, *network.input_shape), np.float32), 2)
    return "run"


def main(folder: Path, first: int, count: int, corpus: Path | None) -> None:
    """Make and read the files."""
    files = own_files(folder)
    if corpus is not None:
        files += [path.read_bytes() for path in sorted(corpus.glob("*.nir"))]
    status = Path("/proc/self/status").read_text()
    used = int(status.partition("VmSize:")[2].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    path = folder / "damaged.nir"
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        try:
            damage(path, pick(rng, files), rng)
        except (OSError, RuntimeError):  # HDF5 itself finds a name or a value too odd to write
            print(number, "not made", flush=True)  # noqa: T201 - the parent reads it
            continue
        semantics = pick(rng, SEMANTICS)
        print(number, semantics, end=" ", flush=True)  # noqa: T201
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
        code = outcome(path, semantics)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(code, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]),
         Path(sys.argv[4]) if len(sys.argv) > 4 else None)  # fmt: skip
