"""Addresses: what a path of such a workspace is called in the storage, and how that is reached."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from marginlab.values import InputError

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # of a server that is not AWS's own
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
SETTINGS = (*ENDPOINTS, *REGIONS)  # what every node must know; credentials are not among it: nodes have their own
CACHE = "MARGINLAB_CACHE"
_ADDRESS = re.compile(r"s3:/{1,2}([^/]*)/*(.*)")


class Away(OSError):
    """The storage does not answer, or refuses at the moment: tried again as a full disk is."""

    def __init__(self, sentence: str) -> None:
        super().__init__(errno.EIO, sentence)

    def __reduce__(self) -> tuple[Any, ...]:
        return Away, (self.strerror,), self.__dict__  # an OSError's own would call it with two arguments


def cache() -> Path:
    """Where this machine keeps what it has of such workspaces."""
    return _cache(os.environ.get(CACHE, ""), os.environ.get("XDG_CACHE_HOME", ""))


@lru_cache
def _cache(own: str, shared: str) -> Path:
    return (Path(own) if own else Path(shared or Path.home() / ".cache") / "marginlab").expanduser().resolve() / "s3"


def named(workspace: Path | str) -> bool:
    """Whether what a user calls a workspace is in object storage."""
    return str(workspace).startswith("s3:/")  # a Path has lost the second slash


def folder_of(workspace: Path | str) -> Path:
    """This machine's folder for ``s3://BUCKET/PREFIX``."""
    found = _ADDRESS.fullmatch(str(workspace))
    inside = found is not None and not {"?", ".."} & {*found[2], *found[2].split("/")}
    if found is None or not inside or not re.fullmatch(r"[a-z0-9][a-z0-9.-]+", found[1]):
        raise InputError(
            f"{str(workspace).rpartition('@')[2]} is no place in object storage: write s3://BUCKET/PREFIX, without a login; the address "
            "of a server that is not AWS's belongs into AWS_ENDPOINT_URL."
        )
    return cache() / found[1] / found[2].strip("/")


def key_of(path: Path) -> str | None:
    """``BUCKET/KEY`` of a path in such a workspace; None of any other."""
    base, whole = str(cache()) + os.sep, os.path.abspath(path)
    return whole[len(base) :] if whole.startswith(base) else None


def shown(path: Path) -> str:
    """For people: where a path is."""
    key = key_of(path)
    return str(path) if key is None else f"s3://{key}"


def filesystem() -> S3FileSystem:
    endpoint = next((os.environ[n] for n in ENDPOINTS if os.environ.get(n)), "")
    return _filesystem(endpoint, os.getpid())


@lru_cache(maxsize=1)
def _filesystem(endpoint: str, process: int) -> S3FileSystem:  # a forked process needs one of its own
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    region = next((os.environ[n] for n in REGIONS if os.environ.get(n)), None)
    parts = urlsplit(endpoint)
    if endpoint and not (parts.scheme in ("http", "https") and parts.netloc):
        raise InputError(
            f"AWS_ENDPOINT_URL={endpoint}: write the server's whole address, such as http://minio.lab:9000."
        )
    where: dict[str, Any] = {"region": region}
    if endpoint:
        where = {"endpoint_override": parts.netloc, "scheme": parts.scheme, "region": region or "us-east-1"}
    patience: dict[str, Any] = {"connect_timeout": 5, "request_timeout": 60}
    # Delayed: a small file is one request and not three.
    return S3FileSystem(
        **where, **patience, allow_delayed_open=True, retry_strategy=AwsStandardS3RetryStrategy(max_attempts=2)
    )


@contextmanager
def told(key: str) -> Iterator[S3FileSystem]:
    """Arrow's errors as ``Away``, with what was refused."""
    try:
        yield filesystem()
    except Away:
        raise
    except OSError as e:
        if e.errno is not None and "AWS Error" not in str(e):
            raise  # of this machine's own disk
        found = re.search(r"AWS Error ([A-Z_]+)", str(e))
        raise Away(f"s3://{key}: {found[1].replace('_', ' ').lower() if found else str(e).splitlines()[0]}") from e
