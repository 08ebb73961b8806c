"""The services of a cluster's head: started by the script that the cluster files name, found again, and started after a crash."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg2
import pytest

from tests.postgres import program
from tests.tracking.serving import free_port

pytestmark = pytest.mark.servers
SCRIPT = Path(__file__).parents[2] / "docs" / "head_services.sh"
# PostgreSQL does not run as root: of its programs those two run as another user, who cannot read what root's shell hands over.
WRAPPED = """#!/bin/bash
args=()
for a in "$@"; do
  case $a in --pwfile=*) cat "${{a#*=}}" > {folder}/word; chown {user} {folder}/word; a=--pwfile={folder}/word;; esac
  args+=("$a")
done
exec setpriv --reuid={user} --regid={user} --clear-groups {real} "${{args[@]}}"
"""


def programs(folder: Path) -> Path:
    """PostgreSQL's, as a user who is not root has them."""
    folder.mkdir()
    for name in ("initdb", "pg_ctl", "pg_isready", "psql", "createdb"):
        real = program(name)
        if os.getuid() == 0 and name in ("initdb", "pg_ctl"):
            (folder / name).write_text(WRAPPED.format(folder=folder, user="postgres", real=real))
            (folder / name).chmod(0o755)
        else:
            (folder / name).symlink_to(real)
    return folder


class Head:
    def __init__(self, folder: Path) -> None:
        self.shared = folder / "shared"
        self.shared.mkdir()
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.shared, user.pw_uid, user.pw_gid)
            os.chown(folder, user.pw_uid, user.pw_gid)
        self.port, self.mlflow, self.home = free_port(), free_port(), folder / "home"
        here = {"BIN": str(Path(sys.executable).parent), "PGPORT": str(self.port), "MLFLOW_PORT": str(self.mlflow)}
        self.env = {**os.environ, **here, "PG_BIN": str(programs(folder / "pg")), "HOME": str(self.home)}

    def start(self) -> str:
        log = self.shared.with_name("said")
        with log.open("w") as f:  # to a file: the server that stays behind keeps what it inherits
            done = subprocess.run(
                ["bash", str(SCRIPT), str(self.shared)], env=self.env, stdout=f, stderr=f, timeout=300
            )
        logs = (self.shared / name for name in ("postgresql.log", "mlflow.log"))
        assert done.returncode == 0, "\n".join(p.read_text()[-2000:] for p in (log, *logs) if p.exists())
        return log.read_text()

    def processes(self) -> list[int]:
        """Those that name the shared folder or the tracking server's port, and all that these have started."""
        found, parents = set(), {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                said = (place / "cmdline").read_bytes().decode(errors="replace")
                parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                if str(self.shared) in said or f"--port\0{self.mlflow}" in said:
                    found.add(int(place.name))
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        hit = self.processes()
        for pid in hit:
            with suppress(ProcessLookupError):
                os.kill(pid, signal_number)
        until = time.monotonic() + 60  # also for who was left to be buried: PostgreSQL takes the dead for the living
        while any(Path(f"/proc/{pid}").exists() for pid in hit) and time.monotonic() < until:
            time.sleep(0.05)

    def answers(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.mlflow}/health", timeout=10) as answer:
            return bool(answer.status == 200)


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="head-") as folder:
        os.chmod(folder, 0o755)
        found = Head(Path(folder))
        yield found
        found.kill(signal.SIGTERM)
        found.kill()


def test_started_once_found_again_and_started_after_a_crash(head: Head) -> None:
    said = head.start()
    assert (
        f"Study database at 127.0.0.1:{head.port}, MLflow at http://127.0.0.1:{head.mlflow}" in said and head.answers()
    )
    secrets = (head.shared / "secrets.env").read_text()
    assert f"MARGINLAB_STUDY_DATABASE=postgresql://marginlab@127.0.0.1:{head.port}/marginlab" in secrets
    assert f"MARGINLAB_TRACKING_URI=http://127.0.0.1:{head.mlflow}" in secrets
    own = head.home / ".config" / "marginlab" / "secrets.env"  # for jobs with another workspace
    assert own.read_text() == secrets and own.stat().st_mode & 0o777 == 0o600
    for name in ("pgpass", "secrets.env"):
        assert (head.shared / name).stat().st_mode & 0o777 == 0o600
    word = (head.shared / "pgpass").read_text().strip().rpartition(":")[2]
    assert len(word) == 48 and word not in secrets
    with pytest.raises(psycopg2.OperationalError, match="no password supplied|password authentication failed"):
        psycopg2.connect(host="127.0.0.1", port=head.port, user="marginlab", dbname="marginlab", password="guess")
    for pid in head.processes():  # the password is in nobody's command line or environment
        with suppress(OSError):
            assert word.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert word.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    connection = psycopg2.connect(
        host="127.0.0.1", port=head.port, user="marginlab", dbname="marginlab", passfile=str(head.shared / "pgpass")
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 7 AS n")
    connection.close()
    server = (head.shared / "postgresql" / "postmaster.pid").read_text()
    head.start()
    assert (head.shared / "postgresql" / "postmaster.pid").read_text() == server
    assert (head.shared / "secrets.env").read_text() == secrets
    head.kill()  # the machine went; another one mounts the same storage
    head.start()
    connection = psycopg2.connect(
        host="127.0.0.1", port=head.port, user="marginlab", dbname="marginlab", passfile=str(head.shared / "pgpass")
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT n FROM kept")
        assert cursor.fetchone() == (7,)
    connection.close()
    assert head.answers()
