"""The Python in CONTRIBUTING.md does what it says, and its table of dependencies is complete."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from marginlab.data.raw import COLUMNS, REQUIRED
from marginlab.losses import Pairs
from marginlab.margins import FixedMargin, Margin, Statistics
from marginlab.training import Training
from marginlab.values import InputError, at_path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """All Python blocks as the one study file that they are."""
    path = tmp_path_factory.mktemp("contributing") / "rising_hands.py"
    path.write_text("\n\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.S)))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, path.stem, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


def test_the_loss_is_the_mean_over_pairs_that_its_docstring_says(example: ModuleType) -> None:
    x = torch.nn.functional.normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3])
    pull, push = [], []
    for i in range(8):
        for j in range(i + 1, 8):
            sim = float(x[i] @ x[j])
            if labels[i] == labels[j]:
                pull.append(1 - sim)
            else:
                push.append(max(0.0, sim - 0.1))
    terms = example.PullPush(weight=2)(Pairs.of(x, labels), Margin.of(beta=0.1))
    assert float(terms.total) == pytest.approx(sum(pull) / len(pull) + 2 * sum(push) / len(push), abs=1e-12)
    assert float(terms.active["push"]) == pytest.approx(sum(p > 0 for p in push) / len(push))


def test_the_loss_checks_its_fields(example: ModuleType) -> None:
    assert isinstance(example.PullPush(weight=2).weight, float)
    with pytest.raises(InputError, match="weight must be 0 or more"):
        example.PullPush(weight=-1.0)


def test_the_policy_rises_to_its_end(example: ModuleType) -> None:
    policy = example.RisingMargin(least=0.25, step=0.125, most=0.4375)
    margin, seen = policy.start(), []
    for _ in range(4):
        seen.append(float(margin.epsilon))
        margin = policy.after_epoch(margin, Statistics())
    assert seen == [0.25, 0.375, 0.4375, 0.4375]


def test_a_policy_that_does_not_set_what_the_loss_reads_is_refused(example: ModuleType) -> None:
    Training(loss=example.PullPush(), margin=FixedMargin(beta=0.2))
    with pytest.raises(InputError, match="PullPush reads beta"):
        Training(loss=example.PullPush(), margin=example.RisingMargin())


def test_the_reader_gives_the_records_of_a_folder(example: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text(
        "File,Person,Year,Clinic\na.png,p1,2003,N\nb.png,p1,2005,N\nc.png,p2,,M\nd.png,p3,2001,M\n"
    )
    table = example.Hands().read(tmp_path)
    assert set(REQUIRED) <= set(table.rows.columns) <= set(COLUMNS)
    assert table.rows.select("path", "months", "split").rows() == [
        ("a.png", 0, "test"),
        ("b.png", 24, "test"),
        ("d.png", 0, "train"),
    ]
    assert [(p.sentence, p.items) for p in table.problems] == [("1 image is left out: no year.", ("c.png",))]


def test_the_study_is_one(example: ModuleType) -> None:
    rising, fixed = example.study.arms
    assert at_path(rising.training, "margin.step") == 0.05 and at_path(fixed.training, "margin.epsilon") == 0.25
    assert example.study.comparison.contrast == ("rising", "fixed")


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", d)[0] for d in project["dependencies"] + project["optional-dependencies"]["dev"]}  # type: ignore[index]
    rows = re.findall(r"^\| ([a-z][^|]*) \| [^|]+ \|$", TEXT.split("## Dependencies")[1], re.M)
    named = {name.split()[0] for row in rows for name in row.split(", ") if not row.startswith("package")}
    named -= {"tune", "train)"}
    assert named == declared
