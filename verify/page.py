"""The report as files: `report.json`, and one page `report.html` that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import CouldNotRunError
from ..files import write_text
from . import formats, view
from .report import plain

JSON, HTML = "report.json", "report.html"
HTML_TEMPLATE = "page.html"
PARTS = ("jinja2", "matplotlib")


def page_missing() -> str | None:
    """Why there will be no page here, in one sentence; None when there will be one."""
    missing = [part for part in PARTS if find_spec(part) is None]
    if not missing:
        return None
    are = "is" if len(missing) == 1 else "are"
    return (
        f"{HTML} was not written: {' and '.join(missing)} {are} not installed; "
        "pip install 'snnpipe[report]'"
    )


def write_report(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``report.json`` and, where `page_missing` is None, ``report.html``; return the paths.

    Raises CouldNotRunError (E_WRITE).
    """
    document = plain(document)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    page = None if page_missing() else render(document)
    paths = [folder / JSON]
    write_text(paths[0], text)
    if page is not None:
        paths.append(folder / HTML)
        write_text(paths[1], page)
    return paths


def remove_report(folder: Path) -> None:
    """Take an older report away: a run that stops half-way must not leave another verdict.

    Raises CouldNotRunError (E_WRITE).
    """
    try:
        for name in (JSON, HTML):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise CouldNotRunError(
            "E_WRITE", f"cannot remove {folder / name}, an older report: {error.strerror}"
        ) from error


def render(document: Mapping[str, Any]) -> str:
    """The page of a report document; the same document gives the same text. Needs `PARTS`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(formats.FILTERS)
    return environment.get_template(HTML_TEMPLATE).render(doc=document, **view.view(document))
