"""Where the files of a data set are: a folder the user names, or fetched once into a cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CouldNotRunError

VARIABLE = "SNNPIPE_DATA"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remote:
    """One published file: addresses that serve the same bytes, and the sha256 of those bytes."""

    file: str
    urls: tuple[str, ...]
    sha256: str


def find(name: str, folder: Path | None, wanted: str, holds: Callable[[Path], bool]) -> Path | None:
    """The first place for which ``holds`` is true, or None when the user named no place to look.

    ``wanted`` says in messages what makes it hold. The place named is ``folder``, else the
    environment variable SNNPIPE_DATA; in it the data set lies in a folder of its own name or
    directly. Raises CouldNotRunError (E_DATA) when a place was named and the data is not there: a
    user who says where the data is wants no download.
    """
    variable = os.environ.get(VARIABLE)
    named = folder or (Path(variable) if variable else None)
    if named is None:
        return None
    for place in (named / name, named):
        if holds(place):
            return place
    raise CouldNotRunError(
        "E_DATA",
        f"data set '{name}' ({wanted}) was not found in {named} or {named / name}; give --data DIR "
        f"or set {VARIABLE} to the folder that holds it",
    )


def not_fetched(name: str, wanted: str, source: str = "") -> CouldNotRunError:
    """The error for a data set that nobody may fetch for the user, who named no place of it."""
    get = f" get it from {source}, unpack it, and" if source else ""
    return CouldNotRunError(
        "E_DATA",
        f"data set '{name}' is not fetched;{get} give --data DIR or set {VARIABLE} to the folder "
        f"that holds {wanted}",
    )


def warn_of_part(name: str, samples: int, whole: int, split: str, place: Path) -> None:
    """Say when a folder holds less than the whole split."""
    if samples != whole:
        _LOG.warning(
            "%s: %d of %d %s samples are in %s; an accuracy got with them is not comparable with "
            "published ones",
            name,
            samples,
            whole,
            split,
            place,
        )


def fetch(name: str, remotes: Sequence[Remote], downloader: Any = None) -> Path:
    """The cache folder with all of ``remotes`` in it, fetched where missing or damaged.

    ``downloader`` takes the place of pooch's own. Raises CouldNotRunError (E_DATA) when a file can
    be had from none of its addresses, (E_MISSING) when pooch is not installed.
    """
    try:
        import pooch
    except ImportError as error:
        raise CouldNotRunError(
            "E_MISSING",
            f"data set '{name}' is fetched with pooch, which is not installed: install "
            f"snnpipe[train], or give --data DIR or set {VARIABLE} to the folder that holds it",
        ) from error
    cache = Path(pooch.os_cache("snnpipe")) / name
    for remote in remotes:
        failures = list(_failures(pooch.retrieve, remote, cache, downloader))
        if len(failures) == len(remote.urls):
            raise CouldNotRunError(
                "E_DATA",
                f"data set '{name}' was not found in {cache}, and {remote.file} could not be "
                f"fetched ({failures[-1]}); give --data DIR or set {VARIABLE} to the folder that "
                "holds it",
            )
    return cache


def _failures(
    retrieve: Callable[..., str], remote: Remote, cache: Path, downloader: Any
) -> Iterator[str]:
    """Why each address failed, until one did not."""
    for url in remote.urls:
        try:
            retrieve(
                url,
                known_hash=f"sha256:{remote.sha256}",
                fname=remote.file,
                path=cache,
                downloader=downloader,
            )
        # OSError: no network, no space, an answer other than 200. ValueError: another sha256.
        except (OSError, ValueError) as error:
            yield f"{url}: {type(error).__name__}"
        else:
            return
