"""Small raw folders in the providers' layouts, written by the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marginlab.data.oai import VISITS
from marginlab.values import stable_seed


def picture(*parts: Any, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A grey noise image, the same for the same parts. size: width, height."""
    rng = np.random.default_rng(stable_seed(*parts))
    return Image.fromarray(rng.integers(0, 256, size[::-1], dtype=np.uint8))


def write_oai(root: Path, subjects: dict[str, str], months: tuple[int, ...] = (0, 12)) -> Path:
    """Both knees of each subject at each visit. subjects: {identifier: site}. Age 60 at month 0, grade 2."""
    (root / "ResizedImages").mkdir(parents=True)
    enrollees = ["ID|VERSION|V00SITE", *(f"{s}|1|{site}" for s, site in subjects.items())]
    (root / "enrollees.txt").write_text("\n".join(enrollees) + "\n")
    for m in months:
        code = VISITS[m]
        ages = [f"ID|V{code}AGE", *(f"{s}|{60 + m / 12:g}" for s in subjects)]
        (root / f"AllClinical{code}.txt").write_text("\n".join(ages) + "\n")
        grades = [f"ID|SIDE|V{code}XRKL", *(f"{s}|{side}|2" for s in subjects for side in (1, 2))]
        (root / f"kxr_sq_bu{code}.txt").write_text("\n".join(grades) + "\n")
        for s in subjects:
            for side in "RL":
                picture(list(subjects).index(s), m, side).save(root / "ResizedImages" / f"{s}_{m:02}_x_{side}.png")
    return root


@pytest.fixture
def oai_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes an OAI folder below tmp_path/<name>; ten subjects, of which three at site C."""

    def write(name: str = "raw", subjects: dict[str, str] | None = None, **keywords: Any) -> Path:
        default = {f"{n}": "ABDECCABCE"[n - 9000001] for n in range(9000001, 9000011)}
        return write_oai(tmp_path / name, default if subjects is None else subjects, **keywords)

    return write


@pytest.fixture(autouse=True)
def private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the home folder of who runs it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "marginlab"
