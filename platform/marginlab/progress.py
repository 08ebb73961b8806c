"""What a study at work shows of itself, as JSON, so that another machine can draw the same."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginlab.watching import Failure, Snapshot

_JOB_LOG = re.compile(r"job-driver-(.+)\.log")


@dataclass(frozen=True)
class Progress:
    """``doing``: the step in words, empty once it is over; ``detail``: how far a step of data is; ``seconds``: how long in it."""

    doing: str
    detail: str
    seconds: float
    shot: Snapshot | None = None

    def dump(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def load(cls, line: str) -> Progress:
        data: dict[str, Any] = json.loads(line)
        shot = data.pop("shot")
        if shot is not None:
            failures = [Failure(f["name"], f["reason"], f["run"] and Path(f["run"])) for f in shot.pop("failures")]
            shot = Snapshot(**shot, failures=failures)
        return cls(**data, shot=shot)


Publish = Callable[[Progress], None]


def file_of(job: str) -> str:
    """The name of the file that a job's progress is in, among the logs of its cluster's head."""
    return f"marginlab-{job}.json"


def job_log() -> Path | None:
    """The log of the job that this process is, found by where its output goes; None where it is no job."""
    try:
        log = Path(os.readlink("/proc/self/fd/1"))
    except OSError:
        return None
    return log if _JOB_LOG.fullmatch(log.name) else None


def publisher() -> Publish | None:
    """In a job of Ray: writes the progress beside the job's log, where Ray serves it to whoever may see the log."""
    log = job_log()
    if log is None:
        return None
    name = _JOB_LOG.fullmatch(log.name)
    assert name is not None
    path = log.with_name(file_of(name[1]))

    def publish(progress: Progress) -> None:
        partial = path.with_suffix(".partial")
        with suppress(OSError):  # it is there to be looked at: nothing waits for it
            partial.write_text(progress.dump() + "\n")
            partial.replace(path)

    return publish
