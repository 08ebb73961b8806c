"""PostgreSQL, and over it MLflow's server that asks for user names and passwords. Both are real, and gone afterwards."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from marginlab.tracking.store import ENVIRONMENT
from tests.postgres import Postgres
from tests.postgres import serving as server
from tests.tracking.fakes import Place, new_packed, new_place
from tests.tracking.serving import free_port, serving

ADMIN, PASSWORD = "head", "a/b:c@d e%f-and-more"  # with everything that means something else in a URI


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with server() as made:
        yield made


@pytest.fixture(scope="session")
def guarded(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of MLflow's server over PostgreSQL; it wants ADMIN and PASSWORD."""
    root, port = tmp_path_factory.mktemp("guarded"), free_port()
    postgres.create("runs", "users", "plain")
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
