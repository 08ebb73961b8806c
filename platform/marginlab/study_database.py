"""Where a study's searches are: ``optuna.db`` in its folder, or a schema of its own in a PostgreSQL database.

``storage.json`` in the folder says which schema of which database; without the file it is ``optuna.db``. Passwords are in neither:
they come from MARGINLAB_STUDY_DATABASE, PGPASSWORD or a password file (PGPASSFILE, ``~/.pgpass``). A schema's name is made once and
by chance, so that studies of one name, of several people or begun anew, lie beside each other and keep Optuna's names of searches.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import RDBStorage

from marginlab.files import read_json, write_json
from marginlab.postgres import Address
from marginlab.postgres_schema import WAITS, Postgres
from marginlab.values import InputError

VARIABLE = "MARGINLAB_STUDY_DATABASE"
OWN = "sqlite"  # the folder's own file, whatever the environment says
RECORD = "storage.json"
FORMAT = 1
LOCKED_S = 60.0  # a look waits so long for a file that somebody has locked
LOCK_S = 2.0  # the registrar holds the file for milliseconds
GONE_S = 45.0  # by then a server knows that a host which it no longer hears is gone


@dataclass(frozen=True)
class Sqlite:
    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def exists(self) -> bool:
        return self.path.exists()

    @property
    def url(self) -> str:
        """For Optuna's own programs."""
        return f"sqlite:///{self.path.absolute()}"

    def check(self) -> None:
        """A file needs nobody's leave."""

    def holder(self) -> str:
        return ""  # the lock of the study's folder says it all

    def storage(self) -> RDBStorage:
        """For the registrar, the only writer. Makes the tables."""
        return optuna.storages.RDBStorage(f"sqlite:///{self.path}")

    @contextmanager
    def reading(self) -> Iterator[RDBStorage | None]:
        """For everybody else; None where no search has begun."""
        yield _sqlite(self.path, self.path.stat().st_ino) if self.path.exists() and self._made() else None

    def _made(self) -> bool:
        """Whether the tables are there: who makes them may be at it, or have died at it. The row with the version comes last."""
        # Not mode=ro: where a writer was killed within a transaction, who comes next must take that back before it can read.
        with closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True, timeout=LOCKED_S)) as connection:
            try:
                return bool(connection.execute("SELECT 1 FROM version_info").fetchall())
            except sqlite3.OperationalError as e:
                if "no such table" in str(e):
                    return False
                raise

    def hindrance(self) -> str:
        if not self.path.exists():
            return ""
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_S, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.Error as e:
            return f"{self.path} cannot be written ({e}): another program holds it. {WAITS} when that one lets go."
        return ""


StudyDatabase = Sqlite | Postgres


def of(folder: Path) -> StudyDatabase:
    """Where the searches of a study's folder are."""
    path = folder / RECORD
    if not path.exists():
        return Sqlite(folder / "optuna.db")
    record = read_json(path)
    if record.get("format") != FORMAT:
        raise InputError(
            f"{path} is of format {record.get('format')}, this MarginLab reads {FORMAT}: use the one that wrote it."
        )
    recorded = Postgres(Address.read(record["study_database"], str(path)).completed(), record["schema"])
    address = _named()
    if not isinstance(address, Address):
        return recorded
    other = Postgres(address, recorded.schema)
    # The same database may go by another name here, as at the end of a tunnel.
    return other if address.place == recorded.address.place or _here(other) else recorded


def choose(folder: Path, given: str | None = None, *, fresh: bool = False) -> StudyDatabase:
    """Where a study that is run keeps its searches: where they are, else where it was told to. Writes nothing.

    Args:
        given: what the study was told; by default what the environment says.
        fresh: what the folder has will be set aside.

    Raises:
        InputError: its searches are elsewhere than it was told, or the database does not answer or refuses.
    """
    with named(given):
        chosen = _chosen(folder, fresh)
    chosen.check()
    return chosen


def _chosen(folder: Path, fresh: bool) -> StudyDatabase:
    address, before = _named(), Sqlite(folder / "optuna.db") if fresh else of(folder)
    if isinstance(before, Postgres):
        if address == OWN:
            raise _elsewhere(folder, before, "a file of its folder")
        if isinstance(address, Address) and address.place != before.address.place:
            Postgres(address, before.schema).check()
            raise _elsewhere(folder, before, address.shown)
    elif isinstance(address, Address):
        if before.exists and not fresh:
            raise _elsewhere(folder, before, address.shown)
        return Postgres(address, _new_schema(folder.name))
    return before


def remember(folder: Path, database: StudyDatabase) -> None:
    """Keep in the study's folder where its searches are, without a password. A file in the folder needs no such note."""
    if isinstance(database, Postgres) and not (folder / RECORD).exists():
        record = {"format": FORMAT, "study_database": database.address.kept, "schema": database.schema}
        write_json(folder / RECORD, record)


@contextmanager
def named(given: str | None) -> Iterator[None]:
    """For the length of the block whoever asks in this process finds the database by this address, as if it was the environment's.

    Raises:
        InputError: it has a password: it may come from a command line.
    """
    before = os.environ.get(VARIABLE)
    if given and given != OWN:
        address, other = Address.read(given), _named()
        if address.password is not None:
            raise InputError(
                "The address of the study database has a password, and everybody on this machine can read command lines: put the "
                f"whole address into {VARIABLE} instead, or the password into PGPASSWORD or ~/.pgpass."
            )
        if isinstance(other, Address) and other.place == address.place and address.user in (None, other.user):
            given = None  # the environment's has the password too
    if given:
        os.environ[VARIABLE] = given
    try:
        yield
    finally:
        if given:
            os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})


def _named() -> Address | Literal["sqlite"] | None:
    """What the environment says."""
    text = os.environ.get(VARIABLE, "")
    if text == OWN:
        return "sqlite"
    return Address.read(text, VARIABLE).completed() if text else None


def require_alone(name: str, database: StudyDatabase, say: Callable[[str], None]) -> None:
    """Raises InputError where another process is at work on the searches. One that may be gone is waited for, which it ``say``s."""
    until, said = time.monotonic() + GONE_S, False
    while holder := database.holder():
        if not said:
            said = True
            say(f"Waiting up to {GONE_S:.0f} s: {holder} holds the searches in {database}.")
        if time.monotonic() > until:
            raise InputError(
                f"The study {name!r} is at work elsewhere: {holder} holds its searches in {database}. Wait for it, or stop it there."
            )
        time.sleep(0.5)


def _elsewhere(folder: Path, before: StudyDatabase, now: str) -> InputError:
    return InputError(
        f"The searches of the study {folder.name!r} are in {before}, not in {now}: name that one (--study-database "
        f"{OWN if isinstance(before, Sqlite) else before}), give the study a new name, or begin it anew with --fresh."
    )


def _new_schema(study: str) -> str:
    """PostgreSQL takes 63 characters, and keeps names that begin with pg_ for itself."""
    slug = re.sub(r"[^a-z0-9]+", "_", study.lower()).strip("_")[:40]
    return f"marginlab_{slug}_{secrets.token_hex(5)}"


@lru_cache(maxsize=8)
def _here(database: Postgres) -> bool:
    return database.here()


@lru_cache(maxsize=8)
def _sqlite(path: Path, inode: int) -> RDBStorage:
    """Opening takes longer than reading, and a study that is watched is read every second."""
    # The registrar has made the tables (_made), so neither they nor their version need a look.
    return optuna.storages.RDBStorage(f"sqlite:///{path}", skip_compatibility_check=True, skip_table_creation=True)


def dashboard(database: StudyDatabase) -> str:
    """The command that opens the searches in Optuna's own dashboard. A password is PGPASSWORD's or the password file's."""
    return f"optuna-dashboard {shlex.quote(database.url)}"
