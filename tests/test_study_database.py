"""Where a study's searches are, without a server: addresses, what is kept and shown of them, and sentences."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from marginlab import postgres, study_database
from marginlab.postgres import Address, away
from marginlab.postgres_schema import Postgres
from marginlab.study_database import RECORD, VARIABLE, Sqlite, choose, named, of, remember, require_alone
from marginlab.values import InputError
from marginlab.watching import dashboard_line

SECRET = "p@ss:w/rd%"
WHOLE = "postgresql://ann:p%40ss%3Aw%2Frd%25@DB.lab:5433/studies?sslmode=require"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "PGPASSWORD", "PGUSER", "PGPASSFILE", "PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every database answers, and none has searches."""
    monkeypatch.setattr(Postgres, "check", lambda self: None)
    monkeypatch.setattr(Postgres, "here", lambda self: False)


def test_an_address_is_read_and_shown_without_its_secrets() -> None:
    a = Address.read(WHOLE)
    assert a.place == ("db.lab", 5433, "studies") and (a.user, a.password) == ("ann", SECRET)
    assert a.shown == "postgresql://db.lab:5433/studies"
    assert a.kept == "postgresql://ann@db.lab:5433/studies?sslmode=require"
    assert Address.read("postgres://db/studies").shown == "postgresql://db/studies"
    assert Address.read("postgresql+psycopg2://[::1]/studies").shown == "postgresql://[::1]/studies"
    asked = Address.read("postgresql://db/studies?user=ann&password=word")
    assert (asked.user, asked.password) == ("ann", "word") and "word" not in asked.kept
    for text in (repr(a), repr(a.url()), str(a.url()), repr(Postgres(a, "s")), Postgres(a, "s").url, a.kept, a.shown):
        assert SECRET not in text and "p%40ss" not in text
    assert pickle.loads(pickle.dumps(Postgres(a, "s"))) == Postgres(a, "s")  # as it travels to the registrar
    assert Postgres(a, "s")._arguments()["password"] == SECRET


@pytest.mark.parametrize(
    "text",
    [
        "mysql://u:SECRET@db/x",
        "SECRET",
        "postgresql://u:SECRET@db",
        "postgresql:///SECRET",
        "postgresql://u:a@SECRET@db/x",
        "postgresql://u@db:SECRET/x",
        "postgresql://u:SECRET@db/x?options=-cfsync",
    ],
)
def test_what_cannot_be_read_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InputError, match="The address of the study database") as e:
        Address.read(text)
    assert "SECRET" not in str(e.value) and e.value.__cause__ is None


def test_what_an_address_lacks_comes_from_the_environment() -> None:
    libpq = {"PGUSER": "bob", "PGPASSWORD": "word", "PGPASSFILE": "/p", "PGSSLMODE": "disable"}
    full = Address.read(WHOLE).completed(libpq)
    assert (full.user, full.password) == ("ann", SECRET)
    assert dict(full.settings) == {"sslmode": "require", "passfile": "/p"}
    bare = Address.read("postgresql://db/studies").completed(libpq)
    assert (bare.user, bare.password, dict(bare.settings)["sslmode"]) == ("bob", "word", "disable")


def test_without_a_word_the_searches_are_in_the_studys_folder(tmp_path: Path) -> None:
    assert choose(tmp_path) == of(tmp_path) == Sqlite(tmp_path / "optuna.db")
    remember(tmp_path, of(tmp_path))
    assert not list(tmp_path.iterdir())
    with named("sqlite"):
        assert choose(tmp_path) == of(tmp_path)


KILLED = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN")
connection.executemany("INSERT INTO studies (study_name) VALUES (?)", ((f"{i:0500}",) for i in range(1000)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_whose_writer_was_killed_within_a_transaction_is_read_as_it_was_before(tmp_path: Path) -> None:
    database = Sqlite(tmp_path / "optuna.db")
    database.storage().create_new_study([optuna.study.StudyDirection.MAXIMIZE], "one")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(database.path)], check=False)
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "optuna.db-journal").stat().st_size
    with database.reading() as storage:
        assert storage is not None and [s.study_name for s in storage.get_all_studies()] == ["one"]


def test_a_database_is_remembered_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: None
) -> None:
    monkeypatch.setenv(VARIABLE, WHOLE)
    chosen = choose(tmp_path)
    assert isinstance(chosen, Postgres) and chosen.address.password == SECRET
    assert chosen.schema.startswith("marginlab_") and len(chosen.schema) <= 63
    assert choose(tmp_path).schema != chosen.schema  # type: ignore[union-attr]
    remember(tmp_path, chosen)
    assert [p.name for p in tmp_path.iterdir()] == [RECORD]
    assert SECRET not in (tmp_path / RECORD).read_text() and "p%40ss" not in (tmp_path / RECORD).read_text()
    assert of(tmp_path) == choose(tmp_path) == chosen
    monkeypatch.delenv(VARIABLE)
    found = of(tmp_path)
    assert isinstance(found, Postgres) and (found.schema, found.address.password) == (chosen.schema, None)
    assert choose(tmp_path) == found
    line = f"'postgresql+psycopg2://ann@db.lab:5433/studies?options=-csearch_path%3D{chosen.schema}&sslmode=require'"
    assert dashboard_line(tmp_path) == f"optuna-dashboard {line}  # pip install optuna-dashboard"
    monkeypatch.setenv("PGPASSWORD", "word")
    assert of(tmp_path).address.password == "word"  # type: ignore[union-attr]


def test_another_database_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: None) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    remember(there, choose(there, "postgresql://ann@db/studies"))
    for given in ("postgresql://other/studies", "sqlite"):
        with pytest.raises(InputError, match="searches of the study 'there' are in postgresql://db/studies, not in"):
            choose(there, given)
    assert choose(there, "postgresql://other/studies", fresh=True).address.host == "other"  # type: ignore[union-attr]
    here.mkdir()
    (here / "optuna.db").touch()
    monkeypatch.setenv(VARIABLE, WHOLE)
    with pytest.raises(InputError, match=r"are in .*/optuna.db, not in .*name that one \(--study-database sqlite\)"):
        choose(here)
    assert choose(here, "sqlite") == Sqlite(here / "optuna.db")
    assert isinstance(choose(here, fresh=True), Postgres)


def test_the_same_database_may_go_by_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: None
) -> None:
    remember(tmp_path, choose(tmp_path, "postgresql://ann@db/studies"))
    monkeypatch.setattr(Postgres, "here", lambda self: self.address.port == 6001)
    with named("postgresql://ann@127.0.0.1:6001/studies"):
        assert of(tmp_path) == choose(tmp_path)
        assert of(tmp_path).address.port == 6001  # type: ignore[union-attr]
    assert "6001" not in (tmp_path / RECORD).read_text()


def test_a_password_has_no_place_on_a_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="put the whole address into MARGINLAB_STUDY_DATABASE") as e, named(WHOLE):
        pass
    assert SECRET not in str(e.value)
    monkeypatch.setenv(VARIABLE, WHOLE)
    with named("postgresql://db.lab:5433/studies"):  # the same one: the environment's has the password
        assert study_database._named().password == SECRET  # type: ignore[union-attr]
    with named("postgresql://db.lab/studies"):
        assert study_database._named().password is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Connection refused\n\tIs the server running?", "does not answer (Connection refused): start it"),
        ('FATAL:  password authentication failed for user "ann"', "refuses the user 'ann' (password authentication"),
        ("fe_sendauth: no password supplied", "put the password into PGPASSWORD or ~/.pgpass"),
        ('FATAL:  database "studies" does not exist', "has no such database: create it there (createdb studies)"),
        ("ERROR:  permission denied for database studies", 'GRANT CREATE ON DATABASE "studies" TO "ann"'),
    ],
)
def test_what_a_server_says_becomes_a_sentence(said: str, sentence: str) -> None:
    whole = f'connection to server at "db" (10.0.0.1), port 5432 failed: {said}'
    error = OperationalError("SELECT 1", None, Exception(whole if "permission" not in said else said))
    told = str(away(Address.read(WHOLE), error))
    assert sentence in told and "postgresql://db.lab:5433/studies" in told and SECRET not in told


def test_a_missing_driver_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "DRIVER", "no_such_driver")
    with pytest.raises(InputError, match="needs its driver, which is not installed: pip install"):
        choose(tmp_path, "postgresql://db/studies")


def test_a_server_that_is_not_there_ends_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="postgresql://127.0.0.1:1/studies does not answer .Connection refused"):
        choose(tmp_path, "postgresql://127.0.0.1:1/studies")


def test_two_drivers_of_one_study_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    database, said = Postgres(Address.read("postgresql://db/studies"), "s"), []
    monkeypatch.setattr(study_database, "GONE_S", 0.0)
    monkeypatch.setattr(Postgres, "holder", lambda self: "process 7 on gpu02")
    with pytest.raises(
        InputError, match="at work elsewhere: process 7 on gpu02 holds its searches in postgresql://db/"
    ):
        require_alone("demo", database, said.append)
    assert said == ["Waiting up to 0 s: process 7 on gpu02 holds the searches in postgresql://db/studies."]
    monkeypatch.setattr(Postgres, "holder", lambda self: "")
    require_alone("demo", database, said.append)
