"""Knees as the Osteoarthritis Initiative delivers them: one picture per knee and visit, and tables in three forms.

``txt``: separated by '|'. ``csv``: separated by commas, and small letters in the columns of two visits, as both are delivered.
``ascii``: as in the provider's own archives, in their folders; numbers with their words, and grades from two readings, of
which the first lacks some. SAS tables are read but not written: pyreadstat has no writer of sas7bdat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marginlab.data.oai import OAI
from marginlab.data.phantom.draw import bounded, generator, shuffled, uniform
from marginlab.data.phantom.files import ENDINGS, save
from marginlab.data.phantom.knee import SIDES, Knee, Visit, knees
from marginlab.data.phantom.knee_picture import render
from marginlab.data.phantom.values import OaiPhantom

VISITS = {0: "00", 12: "01", 24: "03", 36: "05", 48: "06", 72: "08", 96: "10"}  # months: code in file and column names
SITES = "ABCDE"  # equally many subjects each
ATTENDANCE = 0.40  # of each visit after the first
ONE_SIDED = 0.03  # share of later visits at which one knee was not taken
MISSING = "."  # as in the delivered tables
WORDS = {  # of "ascii", by column
    "P02SEX": ("", "Male", "Female"),
    "SIDE": ("", "Right", "Left"),
    "XRKL": ("None", "Doubtful", "Minimal", "Moderate", "Severe"),
    "KSRGL12": ("No", "Yes"),
    "KSRGR12": ("No", "Yes"),
}
ARCHIVES = {"Enrollees": "General_ASCII", "AllClinical": "AllClinical_ASCII", "kxr_sq_bu": "Semi-Quant Scoring_ASCII"}
SMALL = ("03", "08")  # visits whose columns are spelled v03... in "csv"
MEASURED = ("BMI", "HEIGHT", "WEIGHT", "INJL12", "INJR12", "KSRGL12", "KSRGR12", "WOMTSL", "WOMTSR")
MEASURED_FIRST = (
    *("P01BMI", "P01HEIGHT", "P01WEIGHT", "P01INJL", "P01INJR"),
    *("P01KSURGL", "P01KSURGR", "V00WOMTSL", "V00WOMTSR"),
)


@dataclass(frozen=True)
class Subject:
    id: str
    site: str
    sex: int  # 1 male, 2 female
    age: float  # years, at the first visit
    height: float  # millimetres
    weight: float  # kilograms
    knees: dict[str, Knee]
    visits: tuple[Visit, ...]  # by month, then side

    @property
    def months(self) -> list[int]:
        return sorted({v.months for v in self.visits})

    def name(self, visit: Visit) -> str:
        """Of the picture's file, without its ending."""
        return f"{self.id}_{visit.months}_knee_{visit.side}"


def subject(phantom: OaiPhantom, index: int) -> Subject:
    """One participant; the same whatever the number of others. Every fifth, at random within each five, is of site C."""
    rng = generator("oai subject", phantom.version, phantom.seed, index)
    start = int(generator("oai ids", phantom.version, phantom.seed).random() * 900_000)
    both = knees(phantom.version, phantom.seed, index)
    visits = [Visit(both[side], side, months) for months, side in _attended(rng)]
    sex = 1 if rng.random() < 0.42 else 2
    height = 1625.0 + 130.0 * (sex == 1) + 60.0 * bounded(rng, 1)[0]
    return Subject(
        id=str(9_000_000 + (start + 7919 * index) % 900_000),  # 7919 is prime and no divisor: no identifier comes twice
        site=_site(phantom, index),
        sex=sex,
        age=float(uniform(rng, 45.0, 80.0)),
        height=float(height),
        weight=float((28.5 + 4.5 * bounded(rng, 1)[0]) * (height / 1000.0) ** 2),
        knees=both,
        visits=tuple(visits),
    )


def images_of(phantom: OaiPhantom, index: int) -> tuple[bool, int]:
    """Whether a subject is in the test split (the reader's site C), and its images. Draws no knee."""
    rng = generator("oai subject", phantom.version, phantom.seed, index)
    return _site(phantom, index) == OAI.test_site, len(_attended(rng))


def _site(phantom: OaiPhantom, index: int) -> str:
    sites = shuffled(generator("oai sites", phantom.version, phantom.seed, index // len(SITES)), len(SITES))
    return SITES[sites[index % len(SITES)]]


def _attended(rng: np.random.Generator) -> list[tuple[int, str]]:
    """Month and side of every picture: the first that is drawn of a subject."""
    taken = []
    for months in VISITS:
        here, lacking, which = rng.random(3)
        if months == 0 or here < ATTENDANCE:
            sides = [SIDES[int(which * 2)]] if months and lacking < ONE_SIDED else SIDES
            taken += [(months, side) for side in sides]
    return taken


def pictures(phantom: OaiPhantom, index: int, person: Subject) -> NDArray[np.uint8]:
    """The pictures of a participant as they are stored, uint8 [n, H, W], in the order of its visits."""
    return render(phantom.version, phantom.seed, index, phantom.size, list(person.visits))


def write(phantom: OaiPhantom, folder: Path, progress: Callable[[int, int], None]) -> None:
    images = folder / "ResizedImages"
    images.mkdir(exist_ok=True)
    people = []
    for index in range(phantom.subjects):
        person = subject(phantom, index)
        for visit, pixels in zip(person.visits, pictures(phantom, index, person), strict=True):
            file = images / (person.name(visit) + ENDINGS[phantom.images])
            save(pixels, file, phantom.images, person.id)
        people.append(person)
        progress(index + 1, phantom.subjects)
    people.sort(key=lambda p: p.id)
    _table(phantom, folder, "enrollees", ["ID", "V00SITE", "P02SEX"], ((p.id, p.site, p.sex) for p in people))
    for months, code in VISITS.items():
        names = MEASURED if months else MEASURED_FIRST
        header = ["ID", f"V{code}AGE", *(f"V{code}{n}" if months else n for n in names)]
        seen = [p for p in people if months in p.months]
        _table(phantom, folder, f"allclinical{code}", header, (_clinical(p, months) for p in seen))
        header = ["ID", "SIDE", "READPRJ", f"V{code}XRKL"]
        grades = (row for p in seen for row in _grades(p, months))
        _table(phantom, folder, f"kxr_sq_bu{code}", header, grades)


def _clinical(p: Subject, months: int) -> tuple[object, ...]:
    pain = [round(20.0 * p.knees[side].grade(months) / 4.0 + 3.0, 1) for side in ("L", "R")]
    operated = [int(p.knees[side].replaced(months)) for side in ("L", "R")]
    bmi = p.weight / (p.height / 1000.0) ** 2
    age = int(p.age + months / 12.0)
    return (p.id, age, round(bmi, 1), round(p.height, 1), round(p.weight, 1), 0, 0, *operated, *pain)


def _grades(p: Subject, months: int) -> Iterable[tuple[object, ...]]:
    for number, side in enumerate(SIDES, start=1):  # 1: right, 2: left
        taken = any(v.months == months and v.side == side for v in p.visits)
        if taken:
            knee = p.knees[side]  # a replaced joint has no grade
            yield p.id, number, 15, MISSING if knee.replaced(months) else knee.grade(months)


def _table(phantom: OaiPhantom, folder: Path, name: str, header: list[str], rows: Iterable[tuple[object, ...]]) -> None:
    """Write one table in the phantom's form."""
    if phantom.tables == "csv":
        path, separator = folder / f"{name}.csv", ","
        small = name[-2:] in SMALL
        header = [h.replace(f"V{name[-2:]}", f"v{name[-2:]}") if small else h for h in header]
    else:
        path, separator = folder / f"{name}.txt", "|"
    if phantom.tables == "ascii":
        rows = _coded(header, _twice(rows) if "READPRJ" in header else rows)
        kind = next(k for k in ARCHIVES if name.startswith(k.lower()))
        path = folder / ARCHIVES[kind] / (kind + path.name.removeprefix(kind.lower()))
        path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(separator.join(map(str, row)) for row in (header, *rows)) + "\n")


def _twice(rows: Iterable[tuple[object, ...]]) -> Iterable[tuple[object, ...]]:
    """Each knee's grade by two reading projects; the first has not read every fifth knee."""
    for i, (who, side, _, grade) in enumerate(rows):
        yield who, side, 15, MISSING if i % 5 == 4 else grade
        yield who, side, 42, grade


def _coded(header: list[str], rows: Iterable[tuple[object, ...]]) -> Iterable[tuple[object, ...]]:
    """Numbers with their words: "1: Right", ".: Missing Form/Incomplete Workbook"."""
    words = [next((w for column, w in WORDS.items() if name.endswith(column)), ()) for name in header]
    for row in rows:
        yield tuple(_worded(v, w) for v, w in zip(row, words, strict=True))


def _worded(v: object, words: tuple[str, ...]) -> object:
    if v == MISSING:
        return ".: Missing Form/Incomplete Workbook"
    return f"{v}: {words[v]}" if words and isinstance(v, int) else v
