"""A study's searches in a PostgreSQL database: a schema of their own, and one process at a time that writes to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from marginlab.files import PATIENCE_S
from marginlab.postgres import Address, DatabaseAway, away, need_driver, reason_of
from marginlab.values import InputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

CONNECT_S = 5  # libpq's limit per attempt and address
# Both ends notice within half a minute that the other one's host is gone. A commit that was answered is on the disk.
_HEARD = {
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_SESSION = {
    "synchronous_commit": "on",
    "tcp_keepalives_idle": 15,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
}
WAITS = f"The study waits for up to {PATIENCE_S / 60:.0f} minutes and goes on by itself"


class DatabaseHeld(RuntimeError):
    """Another process is at work on the same searches."""


class _Once(RDBStorage):
    """Optuna tries up to five times to make a trial. Where it was made and only the answer was lost, there would be two of them."""

    _tried = False

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        self._tried = False
        return super()._create_new_trial(study_id, template_trial)

    def _get_prepared_new_trial(self, *args: Any) -> Any:
        if self._tried:
            raise ConnectionError("The connection to the study database broke while a trial was made")
        self._tried = True
        return super()._get_prepared_new_trial(*args)


@dataclass(frozen=True)
class Postgres:
    address: Address
    schema: str

    def __str__(self) -> str:
        return self.address.shown

    @property
    def exists(self) -> bool:
        return True

    @property
    def url(self) -> str:
        return self.address.url(options=f"-csearch_path={self.schema}").render_as_string()

    def check(self) -> None:
        """Raises InputError where the searches cannot be kept there, and says why."""
        need_driver()
        with self._asking() as c:
            allowed = c.exec_driver_sql("SELECT has_database_privilege(current_database(), 'CREATE')").scalar()
            if not allowed and not self._has_schema(c):
                raise away(self.address, PermissionError("permission denied: it may make no schema"))
            if reason := _read_only(c):
                raise InputError(f"The study database {self} cannot be written: {reason}. Name the one that can be.")

    def here(self) -> bool:
        """Whether the searches are there. False, too, where nothing answers."""
        try:
            with self._asking() as c:
                return self._has_schema(c)
        except DatabaseAway:
            return False

    def holder(self) -> str:
        """Who is at work on the searches, on whatever machine; empty: nobody."""
        high, low = divmod(self._key % 2**64, 2**32)
        with self._asking() as c:
            found = c.exec_driver_sql(
                "SELECT coalesce(nullif(a.application_name, ''), 'process ' || l.pid) FROM pg_locks l LEFT JOIN pg_stat_activity a "
                "USING (pid) WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = %s AND l.objid = %s "
                "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (high, low),
            ).scalar()
        return str(found or "")

    def storage(self) -> RDBStorage:
        """For the registrar, the only writer. Makes the schema and the tables.

        It has one connection, and whoever has another one to the same searches is refused it: the lock is the connection's own, so
        it is taken again with every new one and given back by the server when this process or its host is gone.
        """
        need_driver()
        with self._asking() as c:
            if not self._has_schema(c):
                c.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{self.schema}"')

        self._storage().engine.dispose()  # it takes two connections to make the tables, or to look at their version
        made: list[Any] = []

        def hold(connection: Any, record: Any) -> None:
            made.append(connection)
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", (self._key,))
                (mine,) = cursor.fetchone()
            connection.commit()
            if not mine:
                raise DatabaseHeld(f"The searches in {self} are held by another process")

        try:
            return self._storage(skip=True, pool_size=1, max_overflow=0, pool_events=[(hold, "connect")])
        except BaseException:
            for connection in made:  # one that nobody closes keeps the lock
                connection.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[RDBStorage | None]:
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            try:
                reader = _reader(self)
            except _NotBegun:
                reader = None
            yield reader
        except (SQLAlchemyError, StorageInternalError) as e:
            raise away(self.address, e) from e

    def hindrance(self) -> str:
        try:
            with self._asking() as c:
                reason = _read_only(c)
        except DatabaseAway as e:
            reason = reason_of(e.__cause__ or e)
            return f"The study database {self} does not answer ({reason}). {WAITS} when it does."
        return f"The study database {self} cannot be written: {reason}. {WAITS} when it can." if reason else ""

    # -- connections ----------------------------------------------------------------------------------------------------

    @property
    def _key(self) -> int:
        """Of the advisory lock: a signed 64-bit integer."""
        return int.from_bytes(blake2b(self.schema.encode(), digest_size=8).digest(), "big", signed=True)

    def _arguments(self) -> dict[str, Any]:
        session = {"search_path": self.schema, **_SESSION}
        return {
            **_HEARD,
            **self.address.secret(),
            "connect_timeout": CONNECT_S,
            "application_name": f"process {os.getpid()} on {os.uname().nodename}"[:63],
            "options": " ".join(f"-c {k}={v}" for k, v in session.items()),
        }

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        """A connection for a question or two."""
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        need_driver()
        engine = create_engine(
            self.address.url(), connect_args=self._arguments(), poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        try:
            with engine.connect() as connection:
                yield connection
        except SQLAlchemyError as e:
            raise away(self.address, e) from e

    def _has_schema(self, connection: Connection) -> bool:
        asked = connection.exec_driver_sql("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self.schema,))
        return asked.scalar() is not None

    def _made(self) -> bool:
        """Whether the tables are there; the row of this one comes last."""
        with self._asking() as c:
            there = c.exec_driver_sql(
                "SELECT to_regclass(%s) IS NOT NULL", (f'"{self.schema}".alembic_version',)
            ).scalar()
            return bool(there) and c.exec_driver_sql("SELECT 1 FROM alembic_version").scalar() is not None

    def _storage(self, skip: bool = False, **pool: Any) -> RDBStorage:
        need_driver()
        return _Once(
            self.address.url().render_as_string(),
            engine_kwargs={"connect_args": self._arguments(), "pool_pre_ping": True, **pool},
            skip_compatibility_check=skip,
            skip_table_creation=skip,
        )


def _read_only(connection: Connection) -> str:
    asked = connection.exec_driver_sql("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')").one()
    return "it is a standby" if asked[0] else "it is set to read-only" if asked[1] == "on" else ""


class _NotBegun(Exception):
    pass


@lru_cache(maxsize=8)
def _reader(database: Postgres) -> RDBStorage:
    """Opening takes longer than reading, and a study that is watched is read every second. What raises is not kept."""
    if not database._made():
        raise _NotBegun
    return database._storage(skip=True, pool_size=1)
