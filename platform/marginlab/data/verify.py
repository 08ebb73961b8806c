"""Whether a packed dataset is what ``prepare`` wrote: counts, shapes, check sums, leaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marginlab.data.checks import Reading, of_manifest
from marginlab.data.packed import PackedDataset
from marginlab.data.private import default_folder
from marginlab.values import InputError

SHOWN = 5  # rows named in a sentence


@dataclass(frozen=True)
class Verified:
    """A dataset that is as it was written, and what a person should look at all the same."""

    dataset: PackedDataset
    summed: bool  # check sums fit, besides the fingerprint: datasets of before there were any have none
    warnings: tuple[str, ...]


def verify(
    folder: Path | str, *, private: Path | str | None = None, progress: Callable[[int, int], None] | None = None
) -> Verified:
    """Read all of a packed dataset and compare it with what it says of itself. progress: called with (images done, total).

    Raises:
        InputError: the first thing that is wrong, and what to do.
    """
    dataset = PackedDataset.open(folder)  # files, formats, counts, shapes, columns, leaks between splits and folds
    info, place = dataset.info, dataset.folder
    _length(dataset)
    _numbers(info, place)
    unread = _report(dataset)
    reading = Reading(dataset.pixels, progress)
    fingerprint = reading.fingerprint(dataset.manifest, dataset.mean, dataset.std)
    summed = _check_sums(dataset, reading)
    if fingerprint != dataset.fingerprint:
        raise InputError(
            f"{place}: the content has the fingerprint {fingerprint}, but dataset.json says {dataset.fingerprint}: a file "
            "was changed after it was prepared; restore it from a copy, or prepare the dataset again."
        )
    leak = [str(info["leak"]["sentence"])] if info.get("leak") else []
    warnings = [*leak, *unread, *_constant(reading), *_twins(dataset, reading)]
    file = (Path(private) if private is not None else default_folder()) / f"{fingerprint}.json"
    if not file.is_file():
        warnings.append(
            f"There is no private file {file} on this machine: rows cannot be led back to raw files, and no images be added."
        )
    return Verified(dataset, summed, tuple(warnings))


def _length(dataset: PackedDataset) -> None:
    file = dataset.folder / "images.npy"
    expected = dataset.pixels.nbytes + int(getattr(dataset.pixels, "offset", 0))
    if file.stat().st_size != expected:
        raise InputError(
            f"{file}: the file has {file.stat().st_size} bytes instead of {expected}; restore it from a copy, or prepare the "
            "dataset again."
        )


def _numbers(info: dict[str, Any], place: Path) -> None:
    for name in ("mean", "std"):
        numbers = info[name]
        if len(numbers) != info["channels"] or not all(np.isfinite(v) for v in numbers):
            raise InputError(
                f"{place / 'dataset.json'}: {name} must be {info['channels']} numbers, one per channel, not {numbers}."
            )
    if not all(v > 0 for v in info["std"]):
        raise InputError(f"{place / 'dataset.json'}: std must be above 0, not {info['std']}.")


def _report(dataset: PackedDataset) -> list[str]:
    file = dataset.folder / "report.json"
    try:
        report = json.loads(file.read_text())
        records, images, lost = report["records"], report["images"], len(report["unreadable"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: the file is damaged; restore it, or prepare the dataset again.") from None
    if images != len(dataset.manifest) or records - lost != images:
        raise InputError(
            f"{file}: of {records} records {lost} were left out and {images} kept, but the dataset has "
            f"{len(dataset.manifest)} images; these files do not belong together, prepare it again."
        )
    return [f"{lost} of {records} images could not be read and were left out (report.json)."] if lost else []


def _check_sums(dataset: PackedDataset, reading: Reading) -> bool:
    """Whether there are any."""
    kept = dataset.info.get("checks")
    if kept is None:
        return False
    found, rows = reading.blocks(), kept["rows"]
    if len(kept["images"]) != len(found):
        raise InputError(
            f"{dataset.folder / 'dataset.json'}: the check sums are not those of this dataset; restore it."
        )
    wrong = [i for i, (a, b) in enumerate(zip(kept["images"], found, strict=True)) if a != b]
    if wrong:
        first, last = wrong[0] * rows, min((wrong[0] + 1) * rows, len(reading)) - 1
        others = f" and {len(wrong) - 1} more blocks" if len(wrong) > 1 else ""
        raise InputError(
            f"{dataset.folder / 'images.npy'}: the pixels of rows {first} to {last}{others} are not those that were prepared; "
            "restore the file from a copy, or prepare the dataset again."
        )
    if of_manifest(dataset.manifest) != kept["manifest"]:
        raise InputError(
            f"{dataset.folder / 'manifest.parquet'}: the table is not the one that was prepared; restore it from a copy, or "
            "prepare the dataset again."
        )
    return True


def _constant(reading: Reading) -> list[str]:
    rows = np.flatnonzero(reading.constant)
    if not len(rows):
        return []
    return [f"{_images(len(rows))} of a single colour ({_named(rows)}): look at the raw files."]


def _twins(dataset: PackedDataset, reading: Reading) -> list[str]:
    """Images that are pixel for pixel the same, where they should not be: one person's image under another name."""
    order = np.argsort(reading.crc, kind="stable")
    order = order[~reading.constant[order]]
    groups = np.split(order, np.flatnonzero(np.diff(reading.crc[order])) + 1)
    twins = [
        g for g in groups if len(g) > 1 and all(np.array_equal(dataset.pixels[g[0]], dataset.pixels[i]) for i in g[1:])
    ]
    if not twins:
        return []
    subject, split = dataset.manifest["subject"].to_numpy(), dataset.manifest["split"].to_numpy()
    people = sum(len(set(subject[g])) > 1 for g in twins)
    leaks = [g for g in twins if len(set(split[g])) > 1]
    said = f"{sum(map(len, twins))} images are pixel for pixel the same as another one ({_named(twins[0])} first)"
    if people:
        said += f"; {people} such groups are of more than one subject"
    if leaks:
        said += f"; {len(leaks)} ARE IN BOTH SPLITS ({_named(leaks[0])} first), so the test has seen them in training"
    return [said + "."]


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count} images are"


def _named(rows: np.ndarray) -> str:
    some = ", ".join(str(r) for r in np.sort(rows)[:SHOWN])
    return f"row{'s' * (len(rows) > 1)} {some}{', ...' if len(rows) > SHOWN else ''}"
