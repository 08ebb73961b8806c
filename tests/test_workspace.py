from __future__ import annotations

import threading
from pathlib import Path

from marginlab.data.phantom import OaiPhantom
from marginlab.declaration import declare, read_plan
from marginlab.plan import Plan
from marginlab.study import Arm, Dataset, Search, Study
from marginlab.training import Training
from marginlab.workspace import Workspace

DATASET = Dataset("oai", phantom=OaiPhantom(subjects=40, size=36), size=36)
STUDY = Study("s", [DATASET], [Arm("a", Training())], Search(epochs_budget=4, max_epochs=2))


def test_an_old_study_is_moved_aside_whole(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    assert workspace.set_aside("s") is None
    plan = Plan(STUDY, {"oai": "f00"})
    declare(workspace.study("s"), plan)
    moved = workspace.set_aside("s")
    assert moved is not None and not workspace.study("s").exists()
    assert read_plan(moved) == plan and workspace.studies() == [moved.name]
    declare(workspace.study("s"), plan)
    assert workspace.studies() == ["s", moved.name]


def test_two_who_need_a_dataset_prepare_it_once(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    said: list[str] = []
    found = []
    waits = threading.Event()

    def progress(what: str, done: int, total: int) -> None:
        said.append(what)
        if what.startswith("waiting: "):
            waits.set()
        assert waits.wait(60)  # whoever is first goes on when the other one waits

    def prepare() -> None:
        packed = Workspace.at(tmp_path).prepare(DATASET, progress)
        found.append(packed.fingerprint)

    both = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 2
    assert sum(what == "prepare oai" for what in said) == len({*Path(tmp_path, "raw").rglob("*.png")})
    assert any(what.startswith("waiting: ") for what in said)
