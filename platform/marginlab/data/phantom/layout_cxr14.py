"""Chests as ChestX-ray14 is distributed: one table, two official lists, and PNG files in twelve folders or one.

The table of ``2020`` has whole years. Lines of both older ones end in a comma, and one age in a hundred is wrong, such as 414;
``2017`` writes 58, ``2017-units`` 058Y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marginlab.data.phantom.chest import Visit, chest, visit
from marginlab.data.phantom.chest_picture import render
from marginlab.data.phantom.draw import generator, shuffled, uniform
from marginlab.data.phantom.files import save
from marginlab.data.phantom.values import Cxr14Phantom

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
PARTS = 5  # of every five patients, at random, one is in the official test list
MEAN_FOLLOW_UPS, MOST_IMAGES = 5.5, 20
YEARS = 12.0  # the longest time between a patient's first and last picture
PER_FOLDER, FOLDERS = 60, 12  # patients
COLOURED = 0.01  # share of pictures stored as RGBA, as a few of the real ones are
FOLDER = {"nested": "images_{:03d}/images", "twelve": "images_{:03d}", "one": "images"}
TABLE = {"2020": "Data_Entry_2017_v2020.csv", "2017": "Data_Entry_2017.csv", "2017-units": "Data_Entry_2017.csv"}
WRONG, TOO_OLD = 0.01, (414, 148, 155, 411)  # share of the older tables' ages, and what they say


@dataclass(frozen=True)
class Patient:
    number: int
    test: bool
    age: float  # years, at the first picture
    visits: tuple[Visit, ...]
    coloured: tuple[bool, ...]
    wrong: tuple[bool, ...]  # whether the older tables have another age

    def file(self, visit: Visit) -> str:
        return f"{self.number:08d}_{visit.number:03d}.png"

    def row(self, v: Visit, table: str = "2020") -> str:
        """The patient's line of the table for one picture. Ages are whole years: that is all the data set tells of time."""
        gender = "F" if v.chest.woman else "M"
        years = int(self.age + v.years)
        if table != "2020" and self.wrong[v.number]:
            years = TOO_OLD[v.number % len(TOO_OLD)]
        age = f"{years:03d}Y" if table == "2017-units" else years
        fields = (self.file(v), v.labels, v.number, self.number, age, gender, v.view)
        return ",".join(map(str, (*fields, 2500, 2500, 0.168, 0.168))) + _end(table)


def patient(phantom: Cxr14Phantom, index: int) -> Patient:
    """One patient; the same whatever the number of others. Follow-up 0 is the first picture."""
    rng = generator("cxr14 patient", phantom.version, phantom.seed, index)
    person = chest(phantom.version, phantom.seed, index)
    count = _count(rng)
    share = np.concatenate([[0.0], np.sort(rng.random(max(0, count - 2))), [1.0]])[
        :count
    ]  # of the time between the first and the last
    years = share * YEARS * np.sqrt(rng.random())
    return Patient(
        number=index + 1,
        test=_test(phantom, index),
        age=float(uniform(rng, 20.0, 80.0)),
        visits=tuple(visit(phantom.version, phantom.seed, index, person, i, float(y)) for i, y in enumerate(years)),
        coloured=tuple(rng.random(count) < COLOURED),
        wrong=tuple(_wrong(phantom, index, count)),
    )


def images_of(phantom: Cxr14Phantom, index: int) -> tuple[bool, int]:
    """Whether a patient is in the official test list, and the number of pictures that can be used. Draws no chest."""
    count = _count(generator("cxr14 patient", phantom.version, phantom.seed, index))
    lost = 0 if phantom.table == "2020" else int(_wrong(phantom, index, count).sum())
    return _test(phantom, index), count - lost


def _wrong(phantom: Cxr14Phantom, index: int, count: int) -> NDArray[np.bool_]:
    rng = generator("cxr14 ages", phantom.version, phantom.seed, index)
    return np.asarray(rng.random(MOST_IMAGES)[:count] < WRONG)


def _end(table: str) -> str:
    """Of a line."""
    return "" if table == "2020" else ","


def _test(phantom: Cxr14Phantom, index: int) -> bool:
    parts = shuffled(generator("cxr14 lists", phantom.version, phantom.seed, index // PARTS), PARTS)
    return bool(parts[index % PARTS] == 0)


def _count(rng: np.random.Generator) -> int:
    """The number of pictures: the first that is drawn of a patient."""
    return 1 + min(MOST_IMAGES - 1, int(-np.log1p(-rng.random()) * MEAN_FOLLOW_UPS))


def pictures(phantom: Cxr14Phantom, index: int, person: Patient) -> NDArray[np.uint8]:
    """The pictures of a patient as they are stored, uint8 [n, H, W], in the order of its visits."""
    return render(phantom.version, phantom.seed, index, phantom.size, list(person.visits))


def write(phantom: Cxr14Phantom, folder: Path, progress: Callable[[int, int], None]) -> None:
    rows, lists = [HEADER + _end(phantom.table)], {False: [], True: []}  # type: tuple[list[str], dict[bool, list[str]]]
    for index in range(phantom.subjects):
        person = patient(phantom, index)
        images = folder / FOLDER[phantom.folders].format(1 + index // PER_FOLDER % FOLDERS)
        images.mkdir(parents=True, exist_ok=True)
        taken = zip(person.visits, pictures(phantom, index, person), person.coloured, strict=True)
        for v, pixels, coloured in taken:
            stored = np.asarray(Image.fromarray(pixels).convert("RGBA")) if coloured else pixels
            save(stored, images / person.file(v), "png")
            rows.append(person.row(v, phantom.table))
            lists[person.test].append(person.file(v))
        progress(index + 1, phantom.subjects)
    (folder / TABLE[phantom.table]).write_text("\n".join(rows) + "\n")
    (folder / "train_val_list.txt").write_text("".join(f"{name}\n" for name in lists[False]))
    (folder / "test_list.txt").write_text("".join(f"{name}\n" for name in lists[True]))
