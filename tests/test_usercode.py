"""A loss that a user defines in their own study file: recorded with its source, and found again by other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marginlab.declaration import declare, load_study
from marginlab.plan import Plan, SearchKey
from marginlab.runs import RunFolder
from marginlab.values import InputError, fingerprint

STUDY = '''
from __future__ import annotations

from typing import Any, ClassVar

from marginlab.augment import Augment
from marginlab.losses import LossTerms
from marginlab.margins import NoMargin
from marginlab.networks import SmallNetwork
from marginlab.study import Arm, Comparison, Dataset, Search, Study
from marginlab.training import Training
from marginlab.values import value


@value
class Pull:
    """Positives together, negatives apart, by their means."""

    weight: float = 1.0
    slots: ClassVar[tuple[str, ...]] = ()

    def __call__(self, pairs: Any, margin: Any) -> LossTerms:
        near = (pairs.sim * pairs.positive_pairs).sum().double()
        far = (pairs.sim * pairs.negative_pairs).sum().double()
        total = pairs.mean(pairs.total(far), pairs.negative_count) - pairs.mean(pairs.total(near), pairs.positive_count)
        return LossTerms(self.weight * total, {"pull": total.detach()}, {})


training = Training(
    loss=Pull(0.5), margin=NoMargin(), network=SmallNetwork(width=16, dim=16), augment=Augment(crop=32), batch_size=32
)
study = Study("own", [Dataset("oai", root="r", size=36)], [Arm("pull", training)], Search(epochs_budget=BUDGET, max_epochs=2))
'''

TRAIN = """
import sys, torch
from pathlib import Path
from marginlab.runs import RunFolder
from marginlab.training import fit
from tests.tiny import Keep, tiny_data
torch.set_num_threads(1)
run = RunFolder.open(Path(sys.argv[1])).run
seen = Keep()
fit(run, tiny_data(), seen, device="cpu")
print(type(run.training.loss).__module__, run.id, seen.rows[1]["train/loss_pull"] != 0)
"""


def write(path: Path, text: str = STUDY, budget: int = 4) -> Plan:
    path.write_text(text.replace("BUDGET", str(budget)))
    return Plan(load_study(str(path)), {"oai": "f00"})


def test_another_process_trains_with_it_from_the_run_folder_alone(tmp_path: Path) -> None:
    plan = write(tmp_path / "mine.py")
    folder = tmp_path / "workspace" / "studies" / "own"
    declare(folder, plan)
    task = plan.trial(SearchKey("oai", "pull", 0), 0, {}, 0)
    RunFolder.create(folder / task.folder, task.run, task.labels)
    (tmp_path / "mine.py").unlink()  # nobody needs the original any more
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(["platform", "."])}
    argv = [sys.executable, "-c", TRAIN, str(folder / task.folder)]
    out = subprocess.run(argv, capture_output=True, text=True, env=env)
    assert out.returncode == 0, out.stderr
    assert out.stdout.split() == ["marginlab_study_mine", task.run.id, "True"]


def test_its_source_is_part_of_the_fingerprint_and_the_rest_of_the_file_is_not(tmp_path: Path) -> None:
    before = write(tmp_path / "mine.py")
    declare(tmp_path / "own", before)
    longer = write(tmp_path / "mine.py", budget=8)
    assert fingerprint(longer.study.arms) == fingerprint(before.study.arms)
    declare(tmp_path / "own", longer)
    changed = write(tmp_path / "mine.py", STUDY.replace(".positive_pairs).sum()", ".positive_pairs).sum().square()"), 8)
    assert fingerprint(changed.study.arms) != fingerprint(before.study.arms)
    with pytest.raises(InputError, match=r"arm pull: training\.loss\.type_source: was"):
        declare(tmp_path / "own", changed)
