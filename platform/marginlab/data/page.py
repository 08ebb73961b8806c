"""What a packed dataset says of itself, for people: ``report.html`` in its folder, one page that needs no network.

It holds counts and no names: neither of people, pseudonyms included, nor of files. Nothing in it depends on the moment or the
place, so the same dataset has the same page. Images of people are not on it; a contact sheet of them is a page of its own, made
on request, and MLflow, which takes the folder of a study's report, does not see either.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from marginlab import __version__
from marginlab.data import summary
from marginlab.data.bars import SWATCHES, bars
from marginlab.data.contact import strips
from marginlab.data.packed import PackedDataset
from marginlab.data.sources import CHECKED, SOURCES, source
from marginlab.files import read_json, write_text
from marginlab.values import InputError

REPORT, CONTACT = "report.html", "contact-sheet.html"
HERE = Path(__file__).parent
VALUES = {"grade": "Grades", "side": "Sides", "view": "Views", "site": "Sites"}
MOST_VALUES = 24  # of a column, in a table; the rarest are summed up
WORDS = {"L": "left", "R": "right", None: "unknown"}


def write_page(dataset: PackedDataset) -> Path:
    write_text(dataset.folder / REPORT, page(dataset), patient=False)
    return dataset.folder / REPORT


def write_contact_sheet(dataset: PackedDataset) -> Path:
    """A file of its own, because it shows people, unless they are phantoms. It is never sent anywhere."""
    file = dataset.folder / CONTACT
    try:
        write_text(file, contact_page(dataset), patient=False)
    except OSError as e:
        raise InputError(
            f"{file}: the contact sheet cannot be written ({e.strerror}); it belongs beside the images."
        ) from None
    return file


def contact_page(dataset: PackedDataset) -> str:
    return _template("contact.html").render(d=dataset, strips=strips(dataset))


def page(dataset: PackedDataset) -> str:
    manifest, info = dataset.manifest, dataset.info
    reader = str(info.get("reader"))
    report: dict[str, Any] = read_json(dataset.folder / "report.json")
    parts = summary.overview(manifest)
    leak = (info.get("leak") or {}).get("sentence")  # of a split that is published and leaks
    return _template("dataset.html").render(
        d=dataset,
        version=__version__,
        source=source(reader, dataset.phantom),
        own=None if reader in SOURCES else reader.rpartition(":")[2],
        checked=CHECKED,
        all=parts.row(-1, named=True),
        answerable=manifest.filter(
            summary.answerable(manifest)
        ).height,  # read where grades are looked for, across splits
        parts=list(parts.iter_rows(named=True)),
        has_sides=_known(manifest, "side"),
        horizons=summary.horizons(manifest).rows(),
        tables=[(title, _values(manifest, column)) for column, title in VALUES.items() if _known(manifest, column)],
        columns=list(summary.PARTS),
        figures=figures(manifest),
        swatches=SWATCHES,
        unknown=_unknown(manifest),
        leak=leak,
        report=report,
        problems=[s for s in report.get("problems", []) if not (leak and s.startswith(leak.partition(":")[0]))],
        unreadable=_unreadable(report.get("unreadable", [])),
        megabytes=dataset.pixels.nbytes / 1e6,
        strips=strips(dataset) if dataset.phantom else [],
    )


def figures(manifest: pl.DataFrame) -> list[tuple[str, Markup]]:
    """Title and drawing of what is known and differs between images."""
    drawn = (
        ("Ages", summary.ages(manifest), "years", "share of images"),
        ("Months since the first visit", summary.months(manifest), "months", "share of images"),
        ("Images per subject", summary.images_per_subject(manifest), "images", "share of subjects"),
        ("Grades", summary.grades(manifest), "grade", "share of images"),
    )
    return [(title, bars(frame, x, y)) for title, frame, x, y in drawn if len(frame) > 1]


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader([HERE, HERE.parent / "report"]),  # the latter has the style that all pages share
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["n"] = lambda n: f"{n:,}"
    return environment.get_template(name)


def _known(manifest: pl.DataFrame, column: str) -> bool:
    return manifest[column].null_count() < len(manifest)


def _values(manifest: pl.DataFrame, column: str) -> list[tuple[str, list[int]]]:
    """A row per value: its name, and images by part. Of very many values the most frequent."""
    frame = summary.by_value(manifest, column)
    often = frame.sort("all", descending=True, maintain_order=True)[:MOST_VALUES][column]
    shown = frame.filter(pl.col(column).is_in(often.implode(), nulls_equal=True))
    rows = [(str(WORDS.get(r[0], r[0])), list(r[1:])) for r in shown.iter_rows()]
    if len(shown) < len(frame):
        rest = frame.drop(column).sum().row(0)
        rows.append(
            (
                f"{len(frame) - len(shown)} others",
                [n - sum(c) for n, *c in zip(rest, *(r[1] for r in rows), strict=True)],
            )
        )
    return rows


def _unknown(manifest: pl.DataFrame) -> list[str]:
    missing = {name: manifest[name].null_count() for name in ("months", "side", "view", "site", "age", "grade")}
    return [f"{name} of {'every image' if n == len(manifest) else f'{n:,} images'}" for name, n in missing.items() if n]


def _unreadable(entries: Iterable[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """By reason: how many images, and the numbers of their records, neighbours put together."""
    reasons: dict[str, list[int]] = {}
    for entry in entries:
        reasons.setdefault(str(entry["reason"]), []).append(int(entry["record"]))
    return [(reason, len(records), _ranges(sorted(records))) for reason, records in reasons.items()]


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs)
