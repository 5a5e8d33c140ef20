"""Data sets of image files in one folder per class, decoded when a batch asks for them."""

from __future__ import annotations

import importlib.util
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CouldNotRunError, RequestError
from ..files import write_folder
from ..network.contract import InputCoding
from .dataset import Examples, Lazy, Split, mixed
from .fetch import Remote, fetch, find, not_fetched, warn_of_part

_ENDINGS = {".jpeg", ".jpg", ".png"}


@dataclass(frozen=True)
class ImageFolder:
    """Images in ``folders`` of a split, a folder for each class: classes are counted in the order
    of their folders' names, images in that of theirs, then `mixed`.

    Each is resized (bilinear, antialiased) so that its shorter side is ``resize``, and the middle
    square of ``shape`` is kept, in training and in testing. ``whole``: images of each split;
    ``inner``: the folder that the published archive holds; ``source``: where a user gets it.
    Pillow decodes, which another release or another JPEG library may do one level differently.
    """

    name: str
    classes: int
    shape: tuple[int, int, int]
    resize: int
    folders: Mapping[Split, str]
    whole: Mapping[Split, int]
    inner: str
    source: str
    archive: Remote | None = None
    levels: int = 255
    scale: float = 1 / 256
    coding: InputCoding = "direct"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:  # noqa: ARG002 (the protocol's)
        """Images (N, 3, H, W), unread, and labels int64 (N,); see `dataset.DataSet.load`.

        Raises CouldNotRunError (E_MISSING) without Pillow.
        """
        if importlib.util.find_spec("PIL") is None:
            raise CouldNotRunError(
                "E_MISSING",
                f"data set '{self.name}' is decoded with Pillow, which is not installed: install "
                "snnpipe[images]",
            )
        place = self._place(folder, split)
        classes = sorted(path for path in place.iterdir() if path.is_dir())
        if len(classes) != self.classes:
            raise RequestError(
                "E_DATA",
                f"{place}: holds {len(classes)} folders, expected {self.classes}, one for each "
                "class",
            )
        files, labels = [], []
        for label, kind in enumerate(classes):
            found = sorted(path for path in kind.iterdir() if path.suffix.lower() in _ENDINGS)
            if not found:
                raise RequestError(
                    "E_DATA", f"{kind}: holds no image ({', '.join(sorted(_ENDINGS))})"
                )
            files += found
            labels += [label] * len(found)
        warn_of_part(self.name, len(files), self.whole[split], split, place)

        def item(row: int) -> NDArray[np.uint8]:
            return decoded(files[row], self.resize, self.shape[1:])

        order = mixed(len(files))
        return Lazy(order, item), np.array(labels, np.int64)[order]

    def _place(self, folder: Path | None, split: Split) -> Path:
        wanted = f"the folder {self.folders[split]} with a folder of images for each class"

        def inside(place: Path) -> Path:
            inner = place / self.inner
            return (inner if inner.is_dir() else place) / self.folders[split]

        place = find(self.name, folder, wanted, lambda place: inside(place).is_dir())
        if place is None and self.archive is not None:
            place = self._unpacked(fetch(self.name, [self.archive]) / self.archive.file)
        if place is None:
            raise not_fetched(self.name, wanted, self.source)
        return inside(place)

    def _unpacked(self, archive: Path) -> Path:
        """The folder that holds the archive's, unpacked once, whole or not at all."""
        folder = archive.parent / self.inner

        def unpack(beside: Path) -> None:
            with tarfile.open(archive, "r:gz") as tar:
                members = [m for m in tar.getmembers() if m.isfile()]
                for member in members:
                    member.name = member.name.removeprefix(f"{self.inner}/")
                tar.extractall(beside, members, filter="data")

        if not folder.is_dir():
            write_folder(folder, unpack)
        return archive.parent


def decoded(path: Path, resize: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle (3, H, W) of an image file, resized so that its shorter side is ``resize``.

    Raises RequestError (E_DATA) that names the file when it is no image, damaged or cut off.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            shorter = min(width, height)
            new = (round(width * resize / shorter), round(height * resize / shorter))
            coloured = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError("E_DATA", f"{path}: not a readable image ({error})") from error
    if new != (width, height):
        coloured = coloured.resize(new, Image.Resampling.BILINEAR)
    left, top = (new[0] - size[1]) // 2, (new[1] - size[0]) // 2
    square = coloured.crop((left, top, left + size[1], top + size[0]))
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
