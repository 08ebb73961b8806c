"""Studies as jobs of a Ray cluster, over the HTTP interface of its dashboard: submitted, looked at and stopped from anywhere.

Nothing here needs Ray to run on this machine. What a job was given is recorded with it (``Record``), so that it can be submitted
again by whoever finds it; secrets are not among it (``marginlab.credentials``).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from marginlab.cluster.token import check_token, token_file
from marginlab.package import kept_at
from marginlab.progress import Progress, file_of
from marginlab.values import InputError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
# How long Ray waits, after the SIGTERM that asks a job to stop, before it kills: the epochs in progress end first.
PATIENCE_S = 6 * 3600
_PATIENCE = "RAY_JOB_STOP_WAIT_TIME_S"
SETTINGS = (_PATIENCE,)  # variables of a job's environment that nobody asked for
_HEAD = {"node:__internal_head__": 0.001}  # a driver asks for no CPU, and is not lost with a worker node
_CONNECT_S, _ANSWER_S = 5.0, 60.0
_PLAIN = re.compile(r"jobs/study\.py\s+(\S+)")  # a study that was submitted without `marginlab submit`
# First asked, then asked again, which stops at once; then killed.
_END_NOW = "kill -TERM {0}; sleep 1; kill -TERM {0}; for i in $(seq 20); do kill -0 {0} || exit 0; sleep 1; done; kill -KILL {0}"


class Away(InputError):
    """The cluster does not answer at the moment."""


@dataclass(frozen=True)
class Record:
    """What a job of a study was given, kept with it in the open."""

    study: str
    workspace: str  # as the nodes see it
    arguments: tuple[str, ...]  # of ``marginlab run``, without --fresh: they can be given again
    package: str  # digest of its code; empty where the nodes have all of it
    python: str = "python"

    def metadata(self) -> dict[str, str]:
        told = {k: v if isinstance(v, str) else json.dumps(v) for k, v in vars(self).items()}
        return {f"marginlab.{k}": v for k, v in told.items()}

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Record | None:
        told = {k.removeprefix("marginlab."): v for k, v in metadata.items() if k.startswith("marginlab.")}
        if not told:
            return None
        return cls(
            told["study"], told["workspace"], tuple(json.loads(told["arguments"])), told["package"], told["python"]
        )


@dataclass(frozen=True)
class Job:
    """``began``, ``ended``: seconds since 1970. ``record``: None where it was submitted without ``marginlab submit``."""

    id: str
    study: str  # its name; of a plain job the file that it was given
    state: str  # PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED
    message: str
    began: float
    ended: float | None
    exit_code: int | None
    record: Record | None
    environment: dict[str, str]
    node: str | None  # that the driver is on
    pid: int | None  # of the driver, once it has joined the cluster
    ip: str | None

    @property
    def over(self) -> bool:
        return self.state in ENDED


class Jobs:
    """The jobs of the cluster at ``address``.

    Raises, here and in all methods:
        Away: nobody answers.
        InputError: what is wrong with the address or the token, or with what was asked for, in a sentence.
    """

    def __init__(self, address: str) -> None:
        self.address = checked(address)
        check_token()
        host, port = urlsplit(self.address).hostname, urlsplit(self.address).port
        try:
            socket.create_connection((str(host), port or 80), timeout=_CONNECT_S).close()
        except OSError as e:
            raise Away(
                f"Nobody answers at {self.address} ({e.strerror or e}): is the cluster up, and the tunnel to its dashboard "
                "(ray dashboard ray_cluster.yaml)?"
            ) from None
        with _told(self.address), _without_address():
            self._client = _client(self.address)

    def all(self) -> list[Job]:
        """The jobs of studies, oldest first."""
        with _told(self.address):
            found = [_job(d) for d in self._client.list_jobs()]
        return sorted((j for j in found if j is not None), key=lambda j: j.began)

    def find(self, name: str | None) -> Job:
        """The job of this id, or the latest one of the study of this name; without a name the latest of all."""
        jobs = self.all()
        fitting = [j for j in jobs if name in (None, j.id)] or [j for j in jobs if name == j.study]
        if fitting:
            return fitting[-1]
        there = ", ".join(j.id for j in jobs[-8:]) or "none"
        raise InputError(
            f"{self.address} knows no job {'of a study' if name is None else repr(name)}; those of studies: {there}. A cluster "
            "that was started anew has forgotten its jobs, not the studies: marginlab submit STUDY.py carries on."
        )

    def look(self, job_id: str) -> Job:
        with _told(self.address):
            found = _job(self._client.get_job_info(job_id))
        assert found is not None
        return found

    def submit(
        self, record: Record, environment: Mapping[str, str], *, extra: tuple[str, ...] = (), package: Path | None
    ) -> Job:
        """Begin a job; it is there when this returns, and depends on this machine no more.

        Args:
            extra: arguments for this time alone (``--fresh``).
            package: a folder to send; without one the job takes its code from where an earlier one kept it.
        """
        jobs = self.all()
        for job in jobs:
            if not job.over and job.record and (job.study, job.record.workspace) == (record.study, record.workspace):
                raise InputError(
                    f"The study {record.study!r} is already at work, as the job {job.id}: look at it with marginlab status "
                    f"{job.id} --follow --address {self.address}, or stop it."
                )
        code: dict[str, Any] = {}
        if package is not None:
            code = {"working_dir": str(package)}
        elif record.package:
            code = {"working_dir": f"local://{kept_at(Path(record.workspace), record.package)}"}
        argv = [record.python, "-m", "marginlab.job", "run", *record.arguments, *extra]
        runtime = {**code, "env_vars": {_PATIENCE: str(PATIENCE_S), **environment}}
        with _told(self.address):
            for number in _numbers(jobs, record.study):
                try:
                    made = self._client.submit_job(
                        entrypoint=f"exec {shlex.join(argv)}",
                        submission_id=f"{_slug(record.study)}-{number}",
                        runtime_env=runtime,
                        metadata=record.metadata(),
                        entrypoint_resources=_HEAD,
                    )
                    break
                except RuntimeError as e:  # somebody else took the number
                    if "already exists" not in str(e):
                        raise
        return self.look(made)

    def stop(self, job: Job, now: bool) -> None:
        """Ask a job to stop: the epochs in progress end first; with ``now`` they do not."""
        graceful = _PATIENCE in job.environment
        with _told(self.address):
            if now or graceful or job.pid is None:
                self._client.stop_job(job.id)
            if job.pid is not None and (now or not graceful):
                # A job that was submitted otherwise would be killed seconds after Ray asks it.
                self._run_beside(job, (_END_NOW if now else "kill -TERM {0}").format(job.pid))

    def _run_beside(self, job: Job, command: str) -> None:
        """A small job of its own, on the node of another one's driver."""
        self._client.submit_job(
            entrypoint=command,
            submission_id=f"{job.id}-signal-{uuid.uuid4().hex[:6]}",
            entrypoint_resources={f"node:{job.ip}": 0.001},
        )

    def log(self, job_id: str) -> str:
        with _told(self.address):
            return self._client.get_job_logs(job_id)

    def tail(self, job_id: str, say: Callable[[str], None]) -> threading.Thread:
        """Call ``say`` from a thread with each piece of the log, from its beginning, until the job ends or the line breaks."""

        async def read() -> None:
            async for piece in self._client.tail_job_logs(job_id):
                say(piece)

        def run() -> None:
            try:
                asyncio.run(read())
            except Exception:  # whoever looks at the job itself finds out, and begins anew
                return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def progress(self, job: Job) -> Progress | None:
        """What the job showed last; None where it has shown nothing yet, or was submitted with another version."""
        if job.node is None:
            return None
        query = f"/api/v0/logs/file?node_id={job.node}&filename={file_of(job.id)}&lines=1"
        with _told(self.address):
            answer = self._client._do_request("GET", query)
        try:
            return Progress.load(answer.text) if answer.status_code == 200 else None
        except (ValueError, TypeError, KeyError):
            return None


def checked(address: str) -> str:
    """The dashboard's address, with its scheme."""
    if address.startswith("ray://"):
        raise InputError(
            f"{address} is a Ray Client address, over which a study would depend on this machine. Give the dashboard's instead: "
            "--address http://HEAD:8265."
        )
    full = (address if "://" in address else f"http://{address}").rstrip("/")
    try:
        parts = urlsplit(full)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and "@" not in parts.netloc
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"--address {address.rpartition('@')[2]}: give the dashboard's, such as http://head:8265.")
    return full


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
            return super()._do_request(method, endpoint, **{"timeout": _ANSWER_S, **kwargs})

    return Client(address)


@contextmanager
def _without_address() -> Iterator[None]:
    """Ray lets these variables overrule an address that is given."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    kept = {n: os.environ.pop(n) for n in names if n in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _told(address: str) -> Iterator[None]:
    """What Ray raises, as sentences."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as e:
        there = "RAY_AUTH_TOKEN" in os.environ or token_file().exists()
        what = "refuses the token" if there and "required" not in str(e) else "asks for a token, and was given none"
        raise InputError(
            f"{address} {what}. Copy the cluster's token to {token_file()}, mode 0600, and see that RAY_AUTH_MODE is token "
            f"(it is {os.environ.get('RAY_AUTH_MODE', 'not set')})."
        ) from None
    except (requests.exceptions.RequestException, ConnectionError) as e:
        reason = type(e).__name__ if isinstance(e, requests.exceptions.RequestException) else e
        raise Away(
            f"{address} does not answer as a Ray dashboard does ({reason}): is it the dashboard's port, 8265?"
        ) from None
    except RuntimeError as e:
        raise InputError(f"{address} refuses: {_short(str(e))}") from None


def _short(message: str) -> str:
    """The last line of what may be a traceback."""
    return message.strip().splitlines()[-1][:500] if message.strip() else "it does not say why"


def _job(details: JobDetails) -> Job | None:
    if details.submission_id is None:
        return None
    record = Record.of(details.metadata or {})
    plain = _PLAIN.search(details.entrypoint)
    if record is None and plain is None:
        return None
    driver = details.driver_info
    return Job(
        id=details.submission_id,
        study=record.study if record else plain[1] if plain else "",
        state=str(details.status.value),
        message=details.message or "",
        began=(details.start_time or 0) / 1000,
        ended=details.end_time / 1000 if details.end_time else None,
        exit_code=details.driver_exit_code,
        record=record,
        environment=dict((details.runtime_env or {}).get("env_vars") or {}),
        node=details.driver_node_id,
        pid=int(driver.pid) if driver else None,
        ip=driver.node_ip_address if driver else None,
    )


def _slug(study: str) -> str:
    return study.replace("/", "-")


def _numbers(jobs: list[Job], study: str) -> Iterator[int]:
    taken = [int(found[1]) for j in jobs if (found := re.fullmatch(rf"{re.escape(_slug(study))}-(\d+)", j.id))]
    return iter(range(max(taken, default=0) + 1, max(taken, default=0) + 50))
