"""The searches in a real PostgreSQL, that stops, crashes, is killed and loses its answers: they end as those that nothing disturbed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import optuna
import psycopg2
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from marginlab import files, study_database
from marginlab.cluster.registrar import Registrar
from marginlab.hindrance import hindrance
from marginlab.postgres_schema import DatabaseHeld
from marginlab.study_database import choose, of, remember
from marginlab.values import InputError
from marginlab.workspace import Workspace
from tests.cluster.test_registrar import begun, trials, work
from tests.postgres import Postgres as Server
from tests.postgres import serving

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as made:
        made.create("studies", "others")
        yield made


@pytest.fixture
def address(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the database, without its password, which is in the environment."""
    monkeypatch.setenv("PGPASSWORD", server.password)
    return f"postgresql://marginlab@127.0.0.1:{server.port}/studies"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """The trials of a search in sqlite."""
    return work(begun(tmp_path_factory.mktemp("undisturbed")))


def declared(folder: Path, address: str) -> Path:
    remember(folder, choose(folder, address))
    return begun(folder)


def schemas(server: Server) -> int:
    with server.connect("studies").cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'marginlab_%'")
        return int(cursor.fetchone()[0])


@contextmanager
def at_writes(do: Callable[[int], None]) -> Iterator[None]:
    """Before every statement that writes: called with how many there were."""
    count = 0

    def look(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal count
        if statement.startswith(("INSERT", "UPDATE", "CREATE", "\nCREATE")):
            count += 1
            do(count)

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", look)


def test_the_searches_are_those_of_sqlite_and_lie_beside_others_of_their_name(
    tmp_path: Path, server: Server, address: str, undisturbed: object
) -> None:
    folders = [tmp_path / name / "studies" / "killed" for name in ("ann", "bob")]
    for folder in folders:
        assert work(declared(folder, address)) == undisturbed
    assert Workspace.at(tmp_path / "ann").set_aside("killed") and not folders[0].exists()
    (aside,) = (tmp_path / "ann" / "studies").glob("killed.*")
    assert work(declared(folders[0], address)) == undisturbed  # as --fresh does
    assert trials(aside) == trials(folders[1]) == undisturbed and schemas(server) == 3
    seen = optuna.storages.RDBStorage(of(aside).url)  # what optuna-dashboard is given; PGPASSWORD is there
    assert [s.study_name for s in seen.get_all_studies()] == ["oai/fixed/r0"]


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_whenever_the_answer_to_a_commit_is_lost_nothing_is_lost_or_doubled(
    tmp_path: Path, address: str, undisturbed: object, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """Of every transaction that writes; where it was not written, the second attempt comes through."""
    folder = declared(tmp_path, address)
    wrote, cut, again = False, 0, True
    commit, rollback = PGDialect_psycopg2.do_commit, PGDialect_psycopg2.do_rollback

    def note(_: int) -> None:
        nonlocal wrote
        wrote = True

    def broken(dialect: Any, connection: Any) -> None:
        nonlocal wrote, cut, again
        spoil, wrote = wrote, False
        if spoil and not written:
            again = not again
        if not spoil or (again and not written):
            return commit(dialect, connection)
        cut += 1
        if written:
            commit(dialect, connection)
        connection.close()
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    def undone(dialect: Any, connection: Any) -> None:
        nonlocal wrote
        wrote = False
        if not connection.closed:
            rollback(dialect, connection)

    monkeypatch.setattr(PGDialect_psycopg2, "do_commit", broken)
    monkeypatch.setattr(PGDialect_psycopg2, "do_rollback", undone)
    pause = time.sleep
    monkeypatch.setattr(files.time, "sleep", lambda seconds: pause(min(seconds, 0.1)))
    with at_writes(note):
        found = work(folder)
    assert found == undisturbed and cut >= 20


def test_stopped_crashed_and_killed_in_the_middle_of_a_write_it_is_waited_for(
    tmp_path: Path, server: Server, address: str, undisturbed: object
) -> None:
    folder, how = declared(tmp_path, address), cycle([signal.SIGKILL, signal.SIGINT, signal.SIGQUIT])
    Registrar(str(folder), "first").storage.engine.dispose()  # type: ignore[union-attr]
    told, starting = [], []

    def disturb(count: int) -> None:
        if count in (2, 7, 12, 17, 22):
            server.stop(next(how))
            told.append(hindrance(folder))
            starting.append(threading.Timer(0.5, server.start))
            starting[-1].start()

    with at_writes(disturb):
        found = work(folder)
    for timer in starting:
        timer.join()
    assert found == undisturbed and len(told) >= 4
    said = f"The study database {address.replace('marginlab@', '')} does not answer (Connection refused). The study waits for"
    assert all(sentence.startswith(said) for sentence in told) and hindrance(folder) == ""


def test_only_one_writes_and_who_it_is_is_told(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = declared(tmp_path, address)
    first = Registrar(str(folder), "a")
    assert of(folder).holder() == f"process {os.getpid()} on {os.uname().nodename}"
    monkeypatch.setattr(files, "PATIENCE_S", 0.0)
    other = Registrar(str(folder), "b")
    with pytest.raises(DatabaseHeld):
        other.ask("b/0")
    monkeypatch.setattr(study_database, "GONE_S", 0.0)
    with pytest.raises(InputError, match=rf"at work elsewhere: process {os.getpid()} on "):
        study_database.require_alone("killed", of(folder), lambda _: None)
    assert first.ask("a/0") != "finished"
    first.storage.engine.dispose()  # type: ignore[union-attr]
    assert of(folder).holder() == ""
    assert other.ask("b/0") != "finished"  # who was refused goes on when the first is gone


def test_what_a_server_refuses_ends_in_a_sentence(
    tmp_path: Path, server: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = declared(tmp_path / "begun", address)
    work(folder)
    with pytest.raises(
        InputError, match=r"searches of the study 'begun' are in .*/studies, not in .*/others: name that"
    ):
        choose(folder, address.replace("studies", "others"))
    other_name = address.replace("127.0.0.1", "localhost")
    assert choose(folder, other_name).address.host == "localhost"  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"has no such database: create it there \(createdb nothing\)"):
        choose(tmp_path / "new", address.replace("studies", "nothing"))
    with server.connect("studies").cursor() as cursor:
        cursor.execute(f"CREATE ROLE guest LOGIN PASSWORD '{server.password}'")
        cursor.execute("ALTER DATABASE others SET default_transaction_read_only = on")
    with pytest.raises(InputError, match='as its owner, GRANT CREATE ON DATABASE "studies" TO "guest"'):
        choose(tmp_path / "new", address.replace("marginlab@", "guest@"))
    with pytest.raises(InputError, match="others cannot be written: it is set to read-only"):
        choose(tmp_path / "new", address.replace("studies", "others"))
    monkeypatch.setenv("PGPASSWORD", "wrong-one")
    with pytest.raises(InputError, match="refuses the user 'marginlab'.*PGPASSWORD or ~/.pgpass") as e:
        choose(folder)
    assert "wrong-one" not in str(e.value)
