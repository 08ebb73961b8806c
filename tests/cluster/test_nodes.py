"""``marginlab doctor`` on a real Ray: every node looks at itself, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from marginlab.cli import main
from marginlab.cluster.nodes import look_everywhere
from marginlab.doctor.findings import GOOD, judge
from marginlab.doctor.node import look
from tests.data.listed import packed, people, write


def test_every_node_is_looked_at(ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "private"))
    dataset = packed(write(tmp_path / "raw", *people(0, 30)), tmp_path / "packed")
    folders = {"mine": str(dataset.folder), "absent": str(tmp_path / "absent")}
    (tmp_path / "mark").write_text("")
    here = look(str(tmp_path), "mark", folders, 0)
    (there,) = look_everywhere(tmp_path, "mark", folders).values()
    assert there["versions"] == here["versions"] and there["packed"] == here["packed"] and there["echo"]
    assert there["packed"]["mine"]["fingerprint"] == dataset.fingerprint and abs(there["late"]) < 5
    assert {f.what for f in judge(here, {"me": there}) if f.state != GOOD} <= {"dataset absent", "clock", "disk"}


def test_the_command(ray_here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    address = ray.get_runtime_context().gcs_address
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--address", address, "--workspace", str(tmp_path / "w")])
    said = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 2 and f"chmod 600 {token}" in said
    assert f"1 node at {address}; to train on there is 1 machine with 3 CPUs" in said
    assert not list((tmp_path / "w").iterdir())


def test_a_cluster_that_cannot_be_joined_is_a_finding(tmp_path: Path) -> None:
    """By the dashboard's address, which other commands take; in a process that has no Ray yet."""
    argv = ["doctor", "--address", "http://127.0.0.1:8265", "--workspace", str(tmp_path / "w")]
    command = [sys.executable, "-c", f"from marginlab.cli import main; main({argv})"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("mend cluster")]
    assert "http://127.0.0.1:8265 cannot be joined" in line and "such as head:6379" in line
