"""Studies as jobs: submitted from a machine that goes away, stopped, killed and resumed; and nothing secret is shown."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marginlab.cli import main
from marginlab.credentials import FILE
from tests.cluster import studies
from tests.cluster.driving import story, trained
from tests.hosts.driving import Head, _forks
from tests.hosts.raycluster import RayCluster, _title, wait
from tests.searching import holding

JOB = f"{sys.executable} -m marginlab.job"
STUDY = f"{studies.__file__}:submitted"


def _type(env: dict[str, str], log: Path, argv: tuple[str, ...]) -> None:
    with log.open("w") as out:
        os.dup2(out.fileno(), sys.stdout.fileno())
        os.dup2(out.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(env)
    main(list(argv))


class Laptop:
    """The command line on a machine that is no host of the cluster, with a home of its own."""

    def __init__(self, cluster: RayCluster, home: Path) -> None:
        self.cluster, self.home = cluster, home
        self.token = home / ".ray" / "auth_token"
        self.token.parent.mkdir(parents=True)
        self.token.touch(0o600)
        self.token.write_text((Path(cluster.env["HOME"]) / ".ray" / "auth_token").read_text())
        self.env = {**cluster.env, "HOME": str(home), "SITE": "north"}
        self.calls = 0

    def start(self, *argv: str) -> tuple[Any, Path]:
        """A process that is forked from one that has imported everything, and what it says."""
        self.calls += 1
        log = self.home / f"call-{self.calls}.log"
        args = (self.env, log, (*argv, "--address", self.cluster.dashboard))
        process = _forks.Process(target=_type, args=args)
        process.start()
        return process, log

    def call(self, *argv: str, code: int = 0) -> str:
        return self.end(*self.start(*argv), code)

    def end(self, process: Any, log: Path, code: int) -> str:
        process.join(420)
        said = log.read_text()
        assert process.exitcode == code, said
        return " ".join(said.split())


@pytest.fixture
def laptop(cluster: RayCluster, tmp_path: Path) -> Laptop:
    return Laptop(cluster, tmp_path / "laptop")


def test_a_study_survives_its_laptop_a_stop_and_deaths_of_its_driver(
    head: Head, laptop: Laptop, tmp_path: Path
) -> None:
    cluster, workspace, password = head.cluster, tmp_path / "jobs", secrets.token_hex(16)
    workspace.mkdir()
    (workspace / FILE).touch(0o600)
    (workspace / FILE).write_text(f"MLFLOW_TRACKING_PASSWORD={password}\n")
    home = Path(cluster.env["XDG_DATA_HOME"])
    from tests.lives import lives, never  # here: its preload would take the place of the one of tests.hosts.driving

    lives(tmp_path / "quiet", home, "submitted", never, "submitted")
    folder = workspace / "studies" / "submitted"

    submitted = ["submit", STUDY, "--workspace", str(workspace), "--python", sys.executable, "--env", "SITE"]
    client, log = laptop.start(*submitted)
    wait(lambda: trained(folder) >= 1, "the first epoch")
    os.kill(client.pid, signal.SIGINT)
    assert "No longer looking at submitted-1, which goes on." in laptop.end(client, log, 0)
    laptop.call("stop", "submitted")
    shown = [_title(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()]
    said = laptop.call("status", "submitted", "--follow", code=130)
    assert "submitted-1 was stopped" in said and not (folder / "report").exists()
    assert "Stopping: the epochs in progress end first." in laptop.call("logs", "submitted-1")

    before = trained(folder)
    laptop.call("resume", "submitted", "--no-wait")
    assert "is already at work, as the job submitted-2" in laptop.call(*submitted, code=2)
    wait(lambda: trained(folder) > before, "another epoch")
    (driver,) = cluster.pids(JOB, [cluster.head])
    environment = Path(f"/proc/{driver}/environ").read_text().split("\0")
    assert "SITE=north" in environment and os.readlink(f"/proc/{driver}/cwd").startswith(f"{workspace}/packages/")
    os.kill(driver, signal.SIGKILL)  # in the search
    assert "submitted-2 failed: its process was killed (signal 9)" in laptop.call(
        "status", "submitted", "--follow", code=1
    )
    assert (
        "submitted-1 submitted stopped" in (listed := laptop.call("status"))
        and "submitted-2 submitted failed" in listed
    )

    laptop.call("resume", "submitted", "--no-wait")
    (driver,) = wait(lambda: cluster.pids(JOB, [cluster.head]), "the third job")
    wait(lambda: list(folder.glob("runs/*/*/*/confirmation-*/attempts.json")), "the first run of the confirmation")
    os.kill(driver, signal.SIGKILL)
    assert "submitted-3 failed: its process was killed (signal 9)" in laptop.call(
        "status", "submitted", "--follow", code=1
    )
    assert not (folder / "report").exists()

    assert "Report:" in laptop.call("resume", "submitted")
    assert story(folder) == story(tmp_path / "quiet" / "studies" / "submitted")

    token = laptop.token.read_text()
    assert not [line for line in shown if password in line or token in line]
    assert password not in laptop.call("status", "submitted-1") + laptop.call("logs", "submitted-4") + details(laptop)
    # The token lies in the cluster's own home alone, the password in the file that it was put into.
    assert holding([password, token], cluster.folder) == ["home/.ray/auth_token"]
    assert holding([password, token], workspace) == [FILE]


def details(laptop: Laptop) -> str:
    """All that Ray tells of its jobs."""
    code = (
        f"from ray.job_submission import JobSubmissionClient as C; print(*C({laptop.cluster.dashboard!r}).list_jobs())"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env=laptop.env, capture_output=True, text=True, check=True
    ).stdout


def test_what_is_wrong_with_an_address_or_a_token_is_said(head: Head, laptop: Laptop) -> None:
    laptop.token.chmod(0o644)
    assert f"{laptop.token} can be read by others" in laptop.call("status", code=2)
    laptop.token.chmod(0o600)
    laptop.token.write_text(secrets.token_hex(32))
    assert "refuses the token" in laptop.call("logs", code=2)
    laptop.token.unlink()
    assert "asks for a token, and was given none" in laptop.call("status", code=2)
