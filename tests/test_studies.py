"""Every arm of every study in studies/ trains: two small batches through the real loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from marginlab.declaration import load_study
from marginlab.study import Arm
from marginlab.training import probe

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.py"))
ARMS = [
    pytest.param(arm, study.datasets[0].size, id=f"{path.stem}:{arm.name}")
    for path in STUDIES
    for study in [load_study(str(path))]
    for arm in study.arms
]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_a_study_is_short_and_says_what_it_asks(path: Path) -> None:
    text = path.read_text()
    assert (text.startswith('"""') and "?" in text.split('"""')[1]) or path.stem == "own_loss"
    assert len(text.splitlines()) <= 62


@pytest.mark.parametrize(("arm", "size"), ARMS)
def test_every_arm_trains(arm: Arm, size: int) -> None:
    training = dataclasses.replace(arm.training, batch_size=16)
    measured = probe(training, 1, size, images=16)
    assert measured.batch_s > 0
    for params in arm.starts():
        arm.configured(params, 4)
