from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from marginlab.augment import Augment
from marginlab.data.table import Table
from marginlab.running import Journal, prepare_all
from marginlab.study import Arm, Dataset, Search, Study
from marginlab.training import Training
from marginlab.values import InputError
from marginlab.workspace import Workspace


def test_a_dataset_that_has_nothing_to_look_for_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    lines = ["path,subject,months,split"]
    for i in range(24):
        Image.new("L", (20, 20), 10 * i).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,p{i // 2},0,{'test' if i >= 18 else 'train'}")  # every visit is a first one
    (tmp_path / "table.csv").write_text("\n".join(lines))
    dataset = Dataset("mine", root=str(tmp_path), reader=Table(), size=16)
    study = Study("mine", [dataset], [Arm("a", Training(augment=Augment(crop=16)))], Search(8, 4))
    with pytest.raises(InputError, match="'mine': its test split has 6 first visits and 0 later ones"):
        prepare_all(study, Workspace.at(tmp_path / "w"), Journal(None, lambda _: None), lambda *_: None)
