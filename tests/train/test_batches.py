"""Batches: the order, its slices and its replay, and what is done to images on the way."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pytest
import torch
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.train import autoaugment
from snnpipe.train.augment import Draw, blended, moved
from snnpipe.train.dataset import Lazy
from snnpipe.train.examples import Batch, Batches, in_order, stored_on
from snnpipe.train.prefetch import workers
from snnpipe.train.recipe import DataPart

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = {"crop": 2, "flip": True, "cutout": 3, "mixup": 0.4}
SHAPES = [(2, 6, 5), (3, 2, 6, 5)]
"""Images, and recordings of three frames."""


def stored(count: int, shape: tuple[int, ...] = (2, 6, 5), seed: int = 1) -> torch.Tensor:
    values = np.random.default_rng(seed).integers(1, 256, (count, *shape)).astype(np.uint8)
    return torch.from_numpy(values)


def batches(images: torch.Tensor | Lazy, batch: int = 8, seed: int = 3, **settings: Any) -> Batches:
    world = {name: settings.pop(name) for name in ("rank", "world", "steps") if name in settings}
    labels = torch.arange(len(images)) % 7
    return Batches(images, labels, 1 / 256, DataPart("made", **settings), batch, seed, 7, **world)


def equal(a: Batch, b: Batch) -> bool:
    parts = ((a.frames, b.frames), (a.labels, b.labels), (a.targets, b.targets))
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in parts)


# --- order, replay, slices ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "coding"), [(SHAPES[0], "direct"), (SHAPES[1], "direct"), (SHAPES[0], "rate")]
)
def test_an_epoch_is_what_its_seed_and_number_say(shape: tuple[int, ...], coding: str) -> None:
    """However many came before; a later start gives the rest of the same epoch."""
    images = stored(43, shape)
    one = batches(images, coding=coding, steps=3, **ALL)
    third = list(one.epoch(3))
    assert len(third) == one.per_epoch == 5
    list(one.epoch(1))
    for again in (one, batches(images, coding=coding, steps=3, **ALL)):
        for skip in (0, 2, 5):
            rest = list(again.epoch(3, skip))
            assert len(rest) == 5 - skip
            assert all(equal(a, b) for a, b in zip(third[skip:], rest, strict=True))
    for other in (one.epoch(4), batches(images, seed=4, coding=coding, steps=3, **ALL).epoch(3)):
        found = next(iter(other))
        assert not torch.equal(found.labels, third[0].labels)


@pytest.mark.parametrize("settings", [{}, ALL, {"coding": "rate", "steps": 4, "mixup": 1.0}])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_one_batch(settings: dict[str, Any], world: int) -> None:
    images = stored(40)
    whole = list(batches(images, batch=12, **settings).epoch(2))
    parts = [
        list(batches(images, batch=12, rank=rank, world=world, **settings).epoch(2))
        for rank in range(world)
    ]
    axis = 1 if "coding" in settings else 0
    for index, batch in enumerate(whole):
        mine = [part[index] for part in parts]
        assert {len(part.labels) for part in mine} == {12 // world}
        joined = Batch(
            torch.cat([part.frames for part in mine], axis),
            torch.cat([part.labels for part in mine]),
            torch.cat([part.targets for part in mine]),
        )
        assert equal(joined, batch)


@pytest.mark.parametrize("settings", [{}, ALL])
def test_inputs_that_are_read_give_the_same_batches(settings: dict[str, Any]) -> None:
    images = stored(30).numpy()
    lazy = Lazy(np.arange(30), lambda row: images[row])
    pairs = zip(
        batches(torch.from_numpy(images), **settings).epoch(1),
        batches(lazy, **settings).epoch(1),
        strict=True,
    )
    assert all(equal(a, b) for a, b in pairs)


def test_the_order_is_new_and_whole() -> None:
    images = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1)
    one = batches(images, batch=10)
    orders = [
        torch.cat([(b.frames * 256).flatten() for b in one.epoch(n)]).tolist() for n in (1, 2)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]


def test_in_order() -> None:
    images, labels = stored(11), torch.arange(11)
    lazy = Lazy(np.arange(11), lambda row: images[row].numpy())
    for inputs in (images, lazy):
        found = list(in_order(inputs, labels, 4))
        assert [len(part) for part, _ in found] == [4, 4, 3]
        assert torch.equal(torch.cat([part for part, _ in found]), images)
        assert torch.equal(torch.cat([part for _, part in found]), labels)
    assert list(in_order(images[:0], labels[:0], 4)) == []
    device = torch.device("cpu")
    kept, moved_labels = stored_on(device, (lazy, labels.numpy()))
    assert kept is lazy
    assert torch.equal(moved_labels, labels)


def test_what_the_taker_waits_for() -> None:
    """Reading runs on while the taker works: that is not waited for, but costs readers' time."""
    images = stored(24).numpy()

    def slow(row: int) -> np.ndarray:
        time.sleep(0.02)
        return images[row]

    one = batches(Lazy(np.arange(24), slow), batch=4)
    for _ in one.epoch(1):
        time.sleep(0.15)
    reading = 24 * 0.02 / workers()
    assert reading < one.worked < reading + 0.5
    assert one.waited < 0.6 * reading
    for _ in one.epoch(2):
        pass
    assert one.waited > reading * 0.8
    memory = batches(torch.from_numpy(images), batch=4)
    for _ in memory.epoch(1):
        time.sleep(0.02)
    assert 0 < memory.waited == memory.worked < 0.1


# --- crop, flip, cutout ---------------------------------------------------------------------------


def by_hand(image: np.ndarray, draw: Draw, row: int, part: DataPart) -> np.ndarray:
    """The same, a pixel at a time, for one image (..., H, W)."""
    height, width = image.shape[-2:]
    found = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            column = width - 1 - x if draw.mirrored[row] else x
            source = (y + draw.shifts[row, 0], column + draw.shifts[row, 1])
            inside = 0 <= source[0] < height and 0 <= source[1] < width
            corner = draw.centres[row] - part.cutout // 2
            blank = all(
                0 <= at - begin < part.cutout for at, begin in zip((y, x), corner, strict=True)
            )
            if inside and not blank:
                found[..., y, x] = image[..., source[0], source[1]]
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "settings",
    [{"crop": 2}, {"flip": True}, {"cutout": 3}, {"cutout": 4, "crop": 1, "flip": True}, {}],
)
def test_moved_as_by_hand(shape: tuple[int, ...], settings: dict[str, Any]) -> None:
    images = stored(40, shape)
    part = DataPart("made", **settings)
    draw = Draw.of(part, 60, (6, 5), np.random.default_rng(5))
    rows = np.arange(15, 55)
    found = moved(images, draw, rows, part)
    assert found.dtype == torch.uint8
    expected = [
        by_hand(image, draw, row, part) for image, row in zip(images.numpy(), rows, strict=True)
    ]
    assert np.array_equal(found.numpy(), np.stack(expected))
    if settings:
        assert not torch.equal(found, images)


def test_draws_cover_their_range() -> None:
    part = DataPart("made", crop=2, flip=True, cutout=1, mixup=0.5)
    draw = Draw.of(part, 6000, (6, 5), np.random.default_rng(0))
    assert np.unique(draw.shifts).tolist() == [-2, -1, 0, 1, 2]
    assert np.bincount(draw.shifts.flatten() + 2).min() > 0.9 * 12000 / 5
    assert abs(draw.mirrored.mean() - 0.5) < 0.03
    assert np.unique(draw.centres[:, 0]).tolist() == list(range(6))
    assert np.unique(draw.centres[:, 1]).tolist() == list(range(5))
    assert np.array_equal(np.sort(draw.partners), np.arange(6000))
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert abs(draw.shares.mean() - 0.5) < 0.02
    assert abs(draw.shares.var() - 1 / 8) < 0.01
    plain = Draw.of(DataPart("made"), 6000, (6, 5), np.random.default_rng(0))
    assert not plain.shifts.any()
    assert not plain.mirrored.any()
    assert np.array_equal(plain.centres, draw.centres)


# --- mixup ----------------------------------------------------------------------------------------


def test_blended() -> None:
    values, others = torch.rand(4, 2, 3, 3), torch.rand(4, 2, 3, 3)
    shares = torch.tensor([0.0, 1.0, 0.25, 0.5])
    found = blended(values, others, shares)
    for row, share in enumerate(shares.tolist()):
        torch.testing.assert_close(found[row], share * values[row] + (1 - share) * others[row])


@pytest.mark.parametrize("shape", SHAPES)
def test_mixup_blends_images_and_targets_alike(shape: tuple[int, ...]) -> None:
    """Each class is one colour: an image then tells of itself how much of which it holds."""
    images = torch.zeros(28, *shape, dtype=torch.uint8)
    images[torch.arange(28) % 7 == 6] = 240
    frames, targets, labels = [], [], []
    for batch in batches(images, batch=14, mixup=0.7).epoch(1):
        frames.append(batch.frames.transpose(0, 1) if len(shape) == 4 else batch.frames)
        targets.append(batch.targets)
        labels.append(batch.labels)
    shown, shares, first = torch.cat(frames), torch.cat(targets), torch.cat(labels)
    assert shares.shape == (28, 7)
    torch.testing.assert_close(shares.sum(1), torch.ones(28))
    torch.testing.assert_close(shown.flatten(1).mean(1), shares[:, 6] * 240 / 256)
    assert (shares > 0).sum(1).max() == 2
    assert ((shares > 0) & (shares < 1)).any()
    assert (shares.gather(1, first[:, None]) > 0).all()
    plain = next(iter(batches(images).epoch(1)))
    assert torch.equal(plain.targets, plain.labels)


# --- what is refused ------------------------------------------------------------------------------


def test_a_cutout_as_large_as_the_image() -> None:
    with pytest.raises(RequestError, match=r"data\.cutout is 6, expected below 6") as caught:
        batches(stored(4), cutout=6)
    assert caught.value.code == "E_RECIPE"
    batches(stored(4), cutout=5)


def test_a_crop_as_large_as_the_image() -> None:
    with pytest.raises(RequestError, match=r"data\.crop is 5, expected below 5") as caught:
        batches(stored(4), crop=5)
    assert caught.value.code == "E_RECIPE"
    batches(stored(4), crop=4)


@pytest.mark.parametrize(
    ("images", "scale"),
    [(stored(4, (3, 2, 6, 5)), 1 / 256), (stored(4), 1 / 256), (stored(4, (3, 6, 5)), 1 / 16)],
)
def test_autoaugment_is_for_pictures(images: torch.Tensor, scale: float) -> None:
    part = DataPart("made", autoaugment=True)
    with pytest.raises(RequestError, match=r"data\.autoaugment is true for inputs") as caught:
        Batches(images, torch.arange(4), scale, part, 2, 0, 4)
    assert caught.value.code == "E_RECIPE"


@pytest.mark.parametrize("error", [ImportError("no module"), RuntimeError("another torch\nand")])
def test_autoaugment_without_its_library(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == "torchvision":
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(CouldNotRunError, match=r"snnpipe\[augment\]") as caught:
        batches(stored(4, (3, 6, 5)), autoaugment=True)
    assert caught.value.code == "E_MISSING"
    assert str(error).partition("\n")[0] in caught.value.message


def test_autoaugment_is_drawn_by_the_seeds() -> None:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        pytest.skip("torchvision for this torch is not installed")
    images = stored(40, (3, 32, 32))
    state = torch.get_rng_state()
    found = autoaugment.autoaugmented(images, range(40))
    assert torch.equal(torch.get_rng_state(), state)
    assert (found.dtype, found.shape) == (torch.uint8, images.shape)
    assert torch.equal(autoaugment.autoaugmented(images[7:], range(7, 40)), found[7:])
    assert 10 < int((found != images).flatten(1).any(1).sum()) < 40
    assert not torch.equal(autoaugment.autoaugmented(images, range(1, 41)), found)
    batch = next(iter(batches(images, crop=4, cutout=8, autoaugment=True).epoch(1)))
    assert batch.frames.shape == (8, 3, 32, 32)
