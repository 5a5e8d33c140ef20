"""The course of a training as TensorBoard shows it, where TensorBoard is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from .state import Epoch

FOLDER = "tensorboard"

Note = Callable[[Epoch, float], None]
"""Takes a finished epoch and the learning rate of its last update."""


@contextmanager
def journal(run: Path) -> Iterator[Note]:
    """Events below a run folder, a point for each epoch; nothing without the package."""
    if find_spec("tensorboard") is None:
        yield lambda _epoch, _rate: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writers: list[SummaryWriter] = []  # it makes its folder at once: not before there is a point

    def note(epoch: Epoch, rate: float) -> None:
        if not writers:
            writers.append(SummaryWriter(str(run / FOLDER)))
        (writer,) = writers
        points = {
            "loss/train": epoch.loss,
            "accuracy/train": epoch.train_accuracy,
            "accuracy/validation": epoch.validation_accuracy,
            "learning rate": rate,
            "seconds/epoch": epoch.seconds,
            "seconds/waited for data": epoch.waited,
        }
        for name, value in points.items():
            if value is not None:
                writer.add_scalar(name, value, epoch.epoch)
        writer.flush()

    try:
        yield note
    finally:
        for writer in writers:
            writer.close()
