from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marginlab import job
from marginlab.package import collect, kept_at

ROOT = Path(__file__).parents[1]


def test_the_workspace_of_a_command_line() -> None:
    assert job.workspace_of(["run", "x.py", "--workspace", "/w"]) == "/w"
    assert job.workspace_of(["run", "-w", "/w", "x.py"]) == job.workspace_of(["run", "--workspace=/w"]) == "/w"
    assert job.workspace_of(["run", "x.py"]) == "workspace"


def test_a_job_has_the_secrets_of_its_workspace_and_keeps_its_code_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(job, "command_line", called.append)
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".config" / "marginlab" / "secrets.env"
    own.parent.mkdir(parents=True)
    own.write_text("PGPASSWORD=other\nPGHOST=db\n")
    own.chmod(0o600)
    monkeypatch.setenv("PGHOST", "")
    monkeypatch.delenv("PGHOST")
    monkeypatch.setenv("PGUSER", "mine")
    monkeypatch.setenv("PGPASSWORD", "")
    monkeypatch.delenv("PGPASSWORD")
    digest = collect(ROOT / "studies" / "demo.py").write(tmp_path / "code", None)
    monkeypatch.chdir(tmp_path / "code")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "secrets.env").write_text("PGPASSWORD=hunter2\nPGUSER=theirs\n")
    (workspace / "secrets.env").chmod(0o600)
    argv = ["run", "studies/demo.py", "--workspace", str(workspace)]
    job.main(argv)
    assert (
        called == [argv]
        and os.environ["PGPASSWORD"] == "hunter2"
        and os.environ["PGHOST"] == "db"
        and os.environ["PGUSER"] == "mine"
    )
    assert (kept_at(workspace, digest) / "studies" / "demo.py").exists()


def test_secrets_that_others_can_read_end_the_job_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secrets.env").write_text("A=hunter2")
    (tmp_path / "secrets.env").chmod(0o644)
    with pytest.raises(SystemExit) as end:
        job.main(["run", "x.py", "--workspace", str(tmp_path)])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "chmod 600" in said and "hunter2" not in said


def test_a_workspace_that_cannot_be_made_ends_the_job_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    collect(ROOT / "studies" / "demo.py").write(tmp_path / "code", None)
    monkeypatch.chdir(tmp_path / "code")
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        job.main(["run", "studies/demo.py", "--workspace", str(tmp_path / "file" / "w")])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "cannot be written" in said and "--workspace /mnt/marginlab" in said


@pytest.mark.parametrize("name", ["study", "prepare", "compare", "embed", "doctor", "plan"])
def test_entry_points_take_the_arguments_of_their_commands(name: str) -> None:
    text = (ROOT / "jobs" / f"{name}.py").read_text()
    command = "run" if name == "study" else name
    assert f'main(["{command}", *sys.argv[1:]])' in text and f"jobs/{name}.py" in text
    compile(text, name, "exec")


def test_an_entry_point_runs_the_code_that_lies_beside_it(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "jobs" / "compare.py"), "--help"]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    out = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert out.returncode == 0 and "marginlab compare automargin-demo" in " ".join(out.stdout.split()), out.stderr
