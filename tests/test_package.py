from __future__ import annotations

import json
from pathlib import Path

import pytest

from marginlab import package
from marginlab.package import collect, keep, kept_at
from marginlab.running import git_commit
from marginlab.values import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A study, a helper, and all that must stay at home."""
    root = tmp_path / "repository"
    kept = ["studies/x.py", "studies/helper.py", "tools/more.py"]
    left = [".git/hooks/pre.py", ".venv/lib/a.py", "my-env/pyvenv.cfg", "my-env/b.py", "build/c.py", "out/mlflow.db"]
    left += ["out/studies/x/code/d.py", "raw/patients.csv", "raw/9000099.png", "notes.txt", "node_modules/e.py"]
    left += ["secrets.env", "space/.locks/x", "space/f.py", "a.egg-info/g.py", "h/__pycache__/h.py"]
    for name in [*kept, *left, "configs/a.json"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "outside").symlink_to(tmp_path)
    (root / "link.py").symlink_to(root / "secrets.env")
    return root


def own(names: dict[str, Path]) -> set[str]:
    return {n for n in names if not n.startswith("marginlab/")}


def test_code_goes_in_and_nothing_else(repository: Path) -> None:
    found = collect(repository / "studies" / "x.py")
    assert found.study == "studies/x.py" and found.root == repository
    assert own(found.files) == {"studies/x.py", "studies/helper.py", "tools/more.py"}
    assert found.brings_marginlab and {"marginlab/report/page.html", "marginlab/cli.py"} <= set(found.files)
    more = collect(repository / "studies" / "x.py", ["configs/*.json"])
    assert own(more.files) - own(found.files) == {"configs/a.json"}
    with pytest.raises(InputError, match="--include nothing/\\*: no file of .*repository fits"):
        collect(repository / "studies" / "x.py", ["nothing/*"])
    for pattern in (str(repository / "configs" / "a.json"), ""):
        with pytest.raises(InputError, match="The pattern is relative to that folder"):
            collect(repository / "studies" / "x.py", [pattern])


def test_outside_of_a_repository_only_what_lies_beside_the_study(tmp_path: Path) -> None:
    for name in ("x.py", "beside.py", "downloads/other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert own(collect(tmp_path / "x.py").files) == {"x.py", "beside.py"}


def test_the_repository_of_marginlab_is_sent_once_and_without_data() -> None:
    names = collect(ROOT / "studies" / "demo.py").files
    assert {"studies/demo.py", "studies/own_loss.py", "jobs/study.py", "marginlab/__init__.py"} <= set(names)
    assert not [n for n in names if n.startswith(("platform/", ".", "workspace/"))]
    assert {Path(n).suffix for n in names} <= {".py", ".html", ".css", ".csv"}


def test_what_the_nodes_have_installed_is_not_sent(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package.marginlab, "__file__", "/usr/lib/python3/site-packages/marginlab/__init__.py")
    found = collect(repository / "studies" / "x.py")
    assert not found.brings_marginlab and own(found.files) == set(found.files)


def test_too_much_is_refused_with_the_names_of_the_largest(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "tools" / "large.py").write_bytes(b"#" * 2**21)
    monkeypatch.setattr(package, "LIMIT", 2**20)
    with pytest.raises(InputError, match=r"more than 1 MB. The largest are tools/large.py \(2.0 MB\)"):
        collect(repository / "studies" / "x.py")


def test_a_digest_tells_contents_and_names_apart_and_the_workspace_keeps_each_once(
    repository: Path, tmp_path: Path
) -> None:
    study = repository / "studies" / "x.py"
    first = collect(study).write(tmp_path / "first", "abc+")
    assert collect(study).write(tmp_path / "again", None) == first
    (repository / "tools" / "more.py").rename(repository / "tools" / "moved.py")
    assert collect(study).write(tmp_path / "second", None) != first
    kept = keep(tmp_path / "first", tmp_path / "workspace")
    assert kept == kept_at(tmp_path / "workspace", first) and (kept / "studies" / "x.py").read_text() == "studies/x.py"
    assert json.loads((kept / package.NOTE).read_text()) == {"digest": first, "commit": "abc+"}
    assert keep(tmp_path / "again", tmp_path / "workspace") == kept == keep(kept, tmp_path / "workspace")
    assert [p.name for p in kept.parent.iterdir()] == [first]


def test_a_job_knows_the_commit_that_its_code_was_sent_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_commit() is None
    (tmp_path / package.NOTE).write_text(json.dumps({"digest": "d", "commit": "abc+"}))
    assert git_commit() == "abc+"
