from __future__ import annotations

import http.server
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from marginlab.tracking import Store, TrackingAway, connect
from marginlab.tracking.store import shown


def test_the_package_loads_without_mlflow_and_ray():
    code = "import sys, marginlab.tracking as t; t.Tracker; sys.exit(bool({'mlflow', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "platform"}).returncode == 0


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1",
        "postgresql+psycopg2://me:secret@127.0.0.1:1/x",
        "http://no.such.host.invalid",
        "nonsense://x",
    ],
)
def test_nothing_there_is_a_sentence_within_seconds(tmp_path, uri):
    began = time.monotonic()
    with pytest.raises(TrackingAway) as e:
        connect(tmp_path, uri)
    assert time.monotonic() - began < 10
    assert shown(uri) in str(e.value) and "leave it out" in str(e.value) and "secret" not in str(e.value)


def test_a_server_that_is_no_mlflow_is_named(tmp_path):
    server = http.server.HTTPServer(("127.0.0.1", 0), type("Quiet", (http.server.BaseHTTPRequestHandler,), {}))
    server.RequestHandlerClass.log_message = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(TrackingAway, match="answers 501 to /health"):
            connect(tmp_path, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("uri", "home"),
    [
        ("sqlite:////w/mlflow.db", True),
        ("http://127.0.0.1:5000", True),
        ("http://localhost:5000", True),
        ("http://[::1]:5000", True),
        ("https://me:secret@mlflow.example.org", False),
        ("http://10.0.0.1:5000", False),
    ],
)
def test_what_counts_as_home(uri, home):
    assert Store(Path("/w"), uri, None).stays_home is home


def test_the_password_is_not_shown():
    assert shown("https://me:secret@mlflow.example.org/x") == "https://mlflow.example.org/x"


def test_experiments_get_a_location_in_the_workspace_and_are_restored(place):
    store = connect(place.workspace)
    made = store.experiment("tracked")
    assert store.client.get_experiment(made).artifact_location == (place.workspace / "mlruns" / "tracked").as_uri()
    store.client.delete_experiment(made)
    assert store.experiment("tracked") == made
    assert store.client.get_experiment(made).lifecycle_stage == "active"


KILLED_HALF_WAY = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from marginlab.tracking import connect

seen = []

@event.listens_for(Engine, "before_cursor_execute")
def count(connection, cursor, statement, *rest):
    seen.append(statement)
    if len(seen) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

connect(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("statement", [40, 400])
def test_killed_while_the_tables_are_made(tmp_path, statement):
    """Found by a kill at a random moment: a database with half of its tables could not be opened again."""
    done = subprocess.run([sys.executable, "-c", KILLED_HALF_WAY, str(tmp_path), str(statement)])
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    assert len(connect(tmp_path).client.search_experiments()) == 1


def test_a_database_that_is_none_ends_in_a_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_text("a shopping list, and nothing that sqlite knows")
    with pytest.raises(TrackingAway, match=r"mlflow\.db, cannot be opened .*move it away, and `marginlab sync`"):
        connect(tmp_path)
