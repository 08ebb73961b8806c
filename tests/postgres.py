"""A PostgreSQL server of the test's own: real, with a password; it can be stopped, killed and started again."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.tracking.serving import free_port

LIMIT_S = 120.0


def program(name: str) -> str:
    """One of PostgreSQL's own. Debian keeps them off the PATH."""
    found = shutil.which(name) or next(
        iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if found is None:
        pytest.fail(f"There is no {name}: install PostgreSQL's server (on Debian, apt-get install postgresql).")
    return str(found)


class Postgres:
    """``host``: the address of this machine that it listens on."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder, self.host, self.port, self.password = folder, host, free_port(), secrets.token_hex(8)
        self.process: subprocess.Popen[bytes] | None = None
        # PostgreSQL does not run as root, and its user cannot look into pytest's folders.
        self._other: dict[str, Any] = {}
        if os.getuid() == 0:
            names = [u.pw_name for u in pwd.getpwall()]
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            self._other = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        word = folder / "password"
        word.write_text(self.password)
        argv = [program("initdb"), "-D", str(folder / "data"), "-U", "marginlab", "-A", "scram-sha-256", "-N"]
        argv += [f"--pwfile={word}"]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, **self._other)
        assert done.returncode == 0, done.stderr
        with (folder / "data" / "pg_hba.conf").open("a") as f:
            f.write("host all all samenet scram-sha-256\n")

    def uri(self, database: str, password: str | None = None) -> str:
        return f"postgresql+psycopg2://marginlab:{password or self.password}@{self.host}:{self.port}/{database}"

    def address(self, database: str) -> str:
        """As people write it."""
        return self.uri(database).replace("+psycopg2", "")

    def connect(self, database: str) -> Any:
        connection = psycopg2.connect(self.address(database))
        connection.autocommit = True
        return connection

    def create(self, *databases: str) -> None:
        with self.connect("postgres").cursor() as cursor:
            for name in databases:
                cursor.execute(f"CREATE DATABASE {name}")

    def start(self) -> None:
        """Returns when it answers. After a kill it may first have to wait for what the killed one left."""
        settings = {"listen_addresses": self.host, "unix_socket_directories": "", "fsync": "off"}
        argv = [program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        argv += [word for k, v in settings.items() for word in ("-c", f"{k}={v}")]
        until = time.monotonic() + LIMIT_S
        while True:
            if self.process is None or self.process.poll() is not None:
                with (self.folder / "log").open("a") as log:
                    self.process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self.folder, **self._other)
            with suppress(psycopg2.OperationalError):
                self.connect("postgres").close()
                return
            assert time.monotonic() < until, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends without waiting for those that are connected, SIGQUIT as a crash of its own, SIGKILL as one of the machine's."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Postgres]:
    """A started server, gone with all that it kept at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="marginlab-postgres-"))
    made: Postgres | None = None
    try:
        made = Postgres(folder, host)
        made.start()
        yield made
    finally:
        if made is not None:
            made.stop()
        shutil.rmtree(folder, ignore_errors=True)
