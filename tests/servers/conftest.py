"""PostgreSQL, and over it MLflow's server that asks for user names and passwords. Both are real, and gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from marginlab.tracking.store import ENVIRONMENT
from tests.tracking.fakes import Place, new_packed, new_place
from tests.tracking.serving import free_port, serving

ADMIN, PASSWORD = "head", "a/b:c@d e%f-and-more"  # with everything that means something else in a URI


@dataclass(frozen=True)
class Postgres:
    port: int
    password: str

    def uri(self, database: str, password: str | None = None) -> str:
        return f"postgresql+psycopg2://marginlab:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str) -> Any:
        import psycopg2

        connection = psycopg2.connect(self.uri(database).replace("+psycopg2", ""))
        connection.autocommit = True
        return connection


def program(name: str) -> str:
    """One of PostgreSQL's own. Debian keeps them off the PATH."""
    found = shutil.which(name) or next(
        iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if found is None:
        pytest.fail(f"There is no {name}: install PostgreSQL's server (on Debian, apt-get install postgresql).")
    return str(found)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    # PostgreSQL does not run as root, and its user cannot look into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="marginlab-postgres-"))
    server: subprocess.Popen[bytes] | None = None
    try:
        other: dict[str, Any] = {}
        if os.getuid() == 0:
            names = [u.pw_name for u in pwd.getpwall()]
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            other = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        made = Postgres(free_port(), secrets.token_hex(8))
        word, data = folder / "password", folder / "data"
        word.write_text(made.password)
        argv = [program("initdb"), "-D", str(data), "-U", "marginlab", "-A", "scram-sha-256", f"--pwfile={word}", "-N"]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, **other)
        assert done.returncode == 0, done.stderr
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        argv = [program("postgres"), "-D", str(data), "-p", str(made.port)]
        argv += [word for k, v in settings.items() for word in ("-c", f"{k}={v}")]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder, **other)
        _wait(made, server, folder / "log")
        yield made
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # ends without waiting for those that are connected
            server.wait(60)
        shutil.rmtree(folder)


def _wait(postgres: Postgres, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg2

    while True:
        try:
            postgres.connect("postgres").close()
            return
        except psycopg2.OperationalError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)


@pytest.fixture(scope="session")
def guarded(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of MLflow's server over PostgreSQL; it wants ADMIN and PASSWORD."""
    root, port = tmp_path_factory.mktemp("guarded"), free_port()
    with postgres.connect("postgres").cursor() as cursor:
        for name in ("runs", "users", "plain"):
            cursor.execute(f"CREATE DATABASE {name}")
    (root / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {postgres.uri('users')}\nadmin_username = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 60\n"  # or every one of a thousand requests hashes the password anew
    )
    env = {**os.environ, **ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env |= {"MLFLOW_AUTH_CONFIG_PATH": str(root / "auth.ini"), "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    env["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secrets.token_hex(16)
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    argv += ["--app-name", "basic-auth", "--backend-store-uri", postgres.uri("runs")]
    argv += ["--artifacts-destination", (root / "artifacts").as_uri()]
    with serving(argv, env, root, port) as url:
        yield url


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return new_place(tmp_path / "work space")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return new_packed(tmp_path / "packed")


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user name and password, in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test leaves in the environment, the next one begins without a name."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def with_password(url: str, name: str = ADMIN, password: str = PASSWORD) -> str:
    return url.replace("://", f"://{name}:{quote(password, safe='')}@")
