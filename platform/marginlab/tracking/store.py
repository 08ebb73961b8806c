"""Where the projection goes: a sqlite file in the workspace, or whatever tracking URI the user names.

mlflow is imported by :func:`connect` and not before: it takes two seconds and 200 MB that no worker should pay.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sqlite3
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from marginlab.files import aside
from marginlab.lock import locked
from marginlab.values import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Nothing leaves the machine unasked, nothing is printed, and a server that is away is noticed in seconds.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CHECK_TIMEOUT_S = 3.0


class TrackingAway(InputError):
    """MLflow cannot be reached or refuses. Nothing is lost: the run folders hold everything, a later sync catches up."""


@dataclass(frozen=True)
class Store:
    """An open connection. ``uri`` is both the tracking and the registry URI; a server's is without user name and password."""

    workspace: Path
    uri: str
    client: MlflowClient

    @property
    def shown_uri(self) -> str:
        return shown(self.uri)

    @property
    def stays_home(self) -> bool:
        """Whether what is logged stays on this machine: a file, or a server at a loopback address."""
        return not self.uri.startswith("http") or (urlsplit(self.uri).hostname or "") in _LOOPBACK

    def experiment(self, study: str) -> str:
        """The id of the study's experiment, made where it does not exist yet.

        Without a server in between, MLflow writes absolute paths into its database: the location is given, not left to
        the current directory, and follows a workspace that was moved.
        """
        location = None if self.uri.startswith("http") else (self.workspace / "mlruns" / study).as_uri()
        found = self.client.get_experiment_by_name(study)
        if found is None:
            return str(self.client.create_experiment(study, artifact_location=location))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        old, mlruns, _ = found.artifact_location.rpartition(f"/mlruns/{study}")
        if mlruns and found.artifact_location != location and self.uri == default_uri(self.workspace):
            _follow_move(self.workspace / "mlflow.db", old, self.workspace.as_uri())
        return str(found.experiment_id)

    def put(self, place: str, file: Path, folder: str | None = None) -> None:
        """Send a file to where a run keeps its artifacts.

        MLflow's client would ask for the whole run to find that out, and would remember what it found of a thousand runs.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(place, tracking_uri=self.uri)
        repository.log_artifact(str(file), folder)  # type: ignore[no-untyped-call]

    def put_text(self, place: str, text: str, name: str) -> None:
        folder, _, name = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / name).write_text(text, encoding="utf-8")
            self.put(place, Path(temporary) / name, folder or None)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turns whatever goes wrong between us and MLflow into :class:`TrackingAway`."""
        from mlflow.exceptions import MlflowException
        from requests import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, RequestException, SQLAlchemyError, OSError) as e:
            if _unnamed(e):
                raise _refused(self.uri) from None
            raise TrackingAway(
                f"MLflow at {self.shown_uri} does not answer or refuses: {_first_line(e)}. The runs go on and their "
                "folders hold everything; `marginlab sync` brings MLflow up to date later."
            ) from e


def default_uri(workspace: Path) -> str:
    return f"sqlite:///{workspace.resolve()}/mlflow.db"


def connect(workspace: Path, uri: str | None = None) -> Store:
    """Open MLflow, in this process.

    Args:
        workspace: holds ``mlflow.db`` and ``mlruns/`` where no ``uri`` is given.
        uri: a tracking URI: ``http(s)://``, ``sqlite:///`` or another database. A server that asks for a user name and a
            password takes them from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or from ``http://name:password@``.

    Raises:
        TrackingAway: nothing answers at ``uri``, within seconds, or it refuses the password.
    """
    workspace = workspace.resolve()
    uri = (uri or default_uri(workspace)).rstrip("/")
    for name, setting in ENVIRONMENT.items():
        os.environ.setdefault(name, setting)
    uri = _introduced(uri)
    _check_reachable(uri)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    workspace.mkdir(parents=True, exist_ok=True)
    try:
        # Processes that create the tables of a new database together fail: one does, the others wait.
        with locked(workspace / ".mlflow.lock", wait=True):
            if uri == default_uri(workspace):
                _make(workspace / "mlflow.db")
            elif not uri.startswith(("http", "sqlite")):
                _ask(uri)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError, ValueError) as e:
        if _unnamed(e):
            raise _refused(uri) from None  # what it answered says no more
        raise _away(uri, _first_line(e), own=uri == default_uri(workspace)) from e
    return Store(workspace, uri, client)


def _make(database: Path) -> None:
    """Make the tables aside: MLflow does it in fifty steps, and cannot open what a killed process left of them."""
    if database.exists():
        return
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    with aside(database) as temporary:
        engine = create_sqlalchemy_engine(f"sqlite:///{temporary}")  # type: ignore[no-untyped-call]
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
        engine.dispose()


def _ask(uri: str) -> None:
    """Connect to a database once: mlflow tries ten times, for minutes, also with a wrong password."""
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.pool import NullPool

    if make_url(uri).get_backend_name() in ("postgresql", "mysql", "mssql"):
        create_engine(uri, poolclass=NullPool).connect().close()


def shown(uri: str) -> str:
    """The URI without user name, password and what a database's may have after a ``?``."""
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme in ("sqlite", "file"):
        return uri
    # A password may hold what ends a host's name elsewhere: all up to the last @ is left out.
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _introduced(uri: str) -> str:
    """A server's URI without user name and password, which go where mlflow's client looks for them: nothing else sees them."""
    if not uri.startswith(("http://", "https://")) or "@" not in uri:
        return uri
    name, _, password = uri.partition("://")[2].rpartition("@")[0].partition(":")
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(name), unquote(password)
    return shown(uri)


def _unnamed(e: Exception) -> bool:
    """Whether a server asks for another user name or password."""
    return bool(re.search(r"error code 401\b|not authenticated", str(e)))


def _refused(uri: str) -> TrackingAway:
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    what = f"refuses the user name {name!r} with the password given" if name else "asks for a user name and a password"
    return TrackingAway(
        f"MLflow at {shown(uri)} {what}: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and `marginlab sync` "
        "brings it up to date."
    )


def _away(uri: str, reason: str, own: bool = False) -> TrackingAway:
    if own:
        return TrackingAway(
            f"The workspace's own MLflow database, {uri.removeprefix('sqlite:///')}, cannot be opened ({reason}): move it "
            "away, and `marginlab sync` makes another from the run folders."
        )
    if re.match(r"postgres(ql)?://", uri) and "psycopg" in reason:
        return TrackingAway(
            f"No driver for {shown(uri)} is installed ({reason}): pip install psycopg2-binary, and begin the URI with "
            "postgresql+psycopg2://."
        )
    return TrackingAway(
        f"No MLflow answers at {shown(uri)} ({reason}): start the server, correct the tracking URI, or leave it out to "
        "use the workspace's own mlflow.db."
    )


def _check_reachable(uri: str) -> None:
    """One short look before mlflow's own attempts, which retry for minutes."""
    parts = urlsplit(uri)
    try:
        if parts.scheme in ("http", "https"):
            urllib.request.urlopen(f"{uri}/health", timeout=_CHECK_TIMEOUT_S).close()
        elif parts.hostname:
            port = parts.port or {"postgresql": 5432, "mysql": 3306}.get(parts.scheme.partition("+")[0])
            if port:
                socket.create_connection((parts.hostname, port), _CHECK_TIMEOUT_S).close()
    except urllib.error.HTTPError as e:
        if e.code not in (401, 403):  # it is there and wants a name; mlflow's client has its own settings for that
            raise _away(uri, f"it answers {e.code} to /health") from None
    except (OSError, ValueError) as e:
        raise _away(uri, str(getattr(e, "reason", e))) from None


def _follow_move(database: Path, old: str, new: str) -> None:
    columns = {
        "experiments": ["artifact_location"],
        "runs": ["artifact_uri"],
        "logged_models": ["artifact_location"],
        "model_versions": ["source", "storage_location"],
    }
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        for table, names in columns.items():
            for name in names:
                connection.execute(
                    f"UPDATE {table} SET {name} = ? || substr({name}, ?) WHERE substr({name}, 1, ?) = ?",
                    (new, len(old) + 1, len(old) + 1, old + "/"),
                )


def _first_line(e: Exception) -> str:
    """What went wrong, without SQLAlchemy's remarks around it (lines in brackets)."""
    lines = str(e).strip().splitlines()
    plain = [line for line in lines if not line.startswith("(raised as a result of")]
    return (plain or [type(e).__name__])[0][:300].rstrip(".")
