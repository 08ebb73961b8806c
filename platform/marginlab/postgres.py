"""The address of a PostgreSQL database: read, completed from the environment, shown without its secrets; and why it refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from marginlab.values import InputError

if TYPE_CHECKING:
    from sqlalchemy import URL

DRIVER = "psycopg2"
PORT = 5432
KEPT = (  # of what may follow a "?": libpq's settings that are no secrets
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "channel_binding",
    "gssencmode",
    "target_session_attrs",
    "passfile",
)
_VARIABLES = {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "passfile": "PGPASSFILE"}  # libpq's own
_SCHEMES = ("postgresql", "postgres", f"postgresql+{DRIVER}")
_FORM = "postgresql://USER@HOST:5432/DATABASE"


class DatabaseAway(InputError):
    """The study database cannot be reached, or refuses. Nothing is lost by it."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int
    database: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    settings: tuple[tuple[str, str], ...] = ()  # libpq's (KEPT)

    @classmethod
    def read(cls, text: str, where: str = "the study database") -> Address:
        """``postgresql://user:password@host:port/database?sslmode=require``. What cannot be read is not repeated: it may hold a
        password."""
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        if text.partition("://")[0] not in _SCHEMES:
            raise InputError(f"The address of {where} must begin with postgresql://: {_FORM}, or be sqlite.")
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            url = None
        if url is None or not url.host or not url.database or "@" in url.host:
            raise InputError(
                f"The address of {where} cannot be read, or lacks a host or a database: it has the form {_FORM}. In a password, "
                "@ is written %40, : is %3A and / is %2F."
            ) from None
        given = {k: v if isinstance(v, str) else v[-1] for k, v in url.query.items()}
        user, password = url.username or given.pop("user", None), url.password or given.pop("password", None)
        if unknown := sorted(set(given) - set(KEPT)):
            raise InputError(
                f"The address of {where} has {', '.join(unknown)} after its question mark: there can be {', '.join(KEPT)}."
            )
        return cls(url.host.lower(), url.port or PORT, url.database, user, password, tuple(sorted(given.items())))

    @property
    def place(self) -> tuple[str, int, str]:
        return self.host, self.port, self.database

    @property
    def shown(self) -> str:
        """For people and files that anybody may read: without user and password."""
        return f"postgresql://{self._there}"

    @property
    def kept(self) -> str:
        """For a study's folder: all but the password."""
        from sqlalchemy import URL

        host, port, database = self.place
        return URL.create("postgresql", self.user, None, host, port, database, dict(self.settings)).render_as_string()

    @property
    def _there(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}{'' if self.port == PORT else f':{self.port}'}/{self.database}"

    def completed(self, environment: Mapping[str, str] = os.environ) -> Address:
        """With what libpq would take from this process's environment, for processes that have another one."""
        settings = {k: environment[name] for k, name in _VARIABLES.items() if environment.get(name)}
        return replace(
            self,
            user=self.user or environment.get("PGUSER"),
            password=self.password or environment.get("PGPASSWORD"),
            settings=tuple(sorted({**settings, **dict(self.settings)}.items())),
        )

    def url(self, **query: str) -> URL:
        """For SQLAlchemy. The password is no part of it (:meth:`secret`): errors and logs may show an address."""
        from sqlalchemy import URL

        host, port, database = self.place
        return URL.create(
            f"postgresql+{DRIVER}", self.user, None, host, port, database, {**dict(self.settings), **query}
        )

    def secret(self) -> dict[str, Any]:
        return {} if self.password is None else {"password": self.password}


def need_driver() -> None:
    if find_spec(DRIVER) is None:
        raise InputError(
            f"A study database on PostgreSQL needs its driver, which is not installed: pip install {DRIVER}-binary, on every machine "
            "that runs or reads the study."
        )


def away(address: Address, error: BaseException) -> DatabaseAway:
    """What went wrong between us and a database, in a sentence that says what to do."""
    reason = reason_of(error)
    if re.search(
        r"password authentication failed|no password supplied|no pg_hba.conf entry|role .* does not exist", reason
    ):
        user = f"the user {address.user!r}" if address.user else "whoever names no user"
        return DatabaseAway(
            f"The study database {address.shown} refuses {user} ({reason}): put the password into PGPASSWORD or ~/.pgpass, or the "
            "whole address into MARGINLAB_STUDY_DATABASE."
        )
    if re.search(r"database .* does not exist", reason):
        return DatabaseAway(
            f"The server of the study database {address.shown} has no such database: create it there (createdb "
            f"{address.database}), or correct the address."
        )
    if "permission denied" in reason:
        return DatabaseAway(
            f"The study database {address.shown} does not let {address.user or 'this user'} do that ({reason}): as its owner, GRANT "
            f'CREATE ON DATABASE "{address.database}" TO "{address.user or "USER"}".'
        )
    return DatabaseAway(
        f"The study database {address.shown} does not answer ({reason}): start it, correct the address, or wait until it is back."
    )


def reason_of(error: BaseException) -> str:
    """The first line of what the driver said, without the address that it repeats."""
    while not hasattr(error, "orig") and error.__cause__ is not None:
        error = error.__cause__
    said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    return re.sub(r"^(connection to server .*? failed: )?((FATAL|ERROR): +)?", "", said.splitlines()[0]).rstrip(".")[
        :200
    ]
