from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from marginlab.augment import Augment
from marginlab.data.decode import Decoder
from marginlab.data.decoding import Decoded, Task, here
from marginlab.data.table import Table
from marginlab.running import Journal, prepare_all
from marginlab.study import Arm, Dataset, Search, Study
from marginlab.training import Training
from marginlab.values import InputError
from marginlab.workspace import Workspace


def _study(tmp_path: Path, months: tuple[int, int]) -> Study:
    """On a table of twelve people with two images each, taken at these months."""
    lines = ["path,subject,months,split"]
    for i in range(24):
        Image.new("L", (20, 20), 10 * i).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,p{i // 2},{months[i % 2]},{'test' if i >= 18 else 'train'}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    dataset = Dataset("mine", root=str(tmp_path), reader=Table(), size=16)
    training = Training(augment=Augment(crop=16), batch_size=8)
    return Study("mine", [dataset], [Arm("a", training)], Search(8, 4))


def test_a_dataset_that_has_nothing_to_look_for_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    study = _study(tmp_path, months=(0, 0))  # every visit is a first one
    with pytest.raises(InputError, match="'mine': its test split has 6 first visits and 0 later ones"):
        prepare_all(study, Workspace.at(tmp_path / "w"), Journal(None, lambda _: None), lambda *_: None)


def test_who_decodes_for_a_study_is_chosen_by_its_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    decoded: list[int] = []

    def hands(decoder: Decoder, chunks: Iterable[Sequence[Task]]) -> Generator[tuple[int, Decoded], None, None]:
        for i, chunk in here(1)(decoder, chunks):
            decoded.append(len(chunk.pixels))
            yield i, chunk

    study = _study(tmp_path, months=(0, 12))
    plan = prepare_all(study, Workspace.at(tmp_path / "w"), Journal(None, lambda _: None), lambda *_: None, hands)
    assert sum(decoded) == 24 and list(plan.data) == ["mine"]
