"""``marginlab run`` from end to end: prepare, declare, search, confirm, record, answer. Run again, it carries on."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError

from marginlab import bucket, faults, stopping
from marginlab.data.decoding import Hands
from marginlab.data.packed import PackedDataset
from marginlab.data.readers import READERS
from marginlab.declaration import declare, refuse_changes
from marginlab.files import patiently, read_json, write_json
from marginlab.hindrance import hindrance
from marginlab.lock import NO_LOCKS, Held, locked
from marginlab.package import NOTE
from marginlab.plan import Plan
from marginlab.postgres import DatabaseAway
from marginlab.runs import HEAVY
from marginlab.search import read_progress
from marginlab.simulated import Curves
from marginlab.study import Dataset, Study
from marginlab.study_database import Sqlite, choose, named, of, remember, require_alone
from marginlab.tracking import Apart, Tracker, TrackingAway, answered, champion, links
from marginlab.values import InputError
from marginlab.workspace import Progress, Workspace

SYNC_PERIOD_S = 10.0  # one sync of several epochs costs less than several of one


@dataclass
class Journal:
    """Which step a study is in and how long each took, kept in its folder for ``status`` and the report."""

    folder: Path | None
    notify: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)  # by step, of this session
    kept: dict[str, float] = field(default_factory=dict)  # those that the summary has
    _step: str | None = None
    _since: float = 0.0

    def step(self, name: str) -> None:
        now = time.monotonic()
        if self._step is not None:
            self.seconds[self._step] = self.seconds.get(self._step, 0.0) + now - self._since
        self._step, self._since = name, now
        self.write()
        self.notify(name)

    def write(self) -> None:
        if self.folder is not None:
            status = {"step": self._step, "pid": os.getpid(), "host": os.uname().nodename, "since": time.time()}
            with suppress(OSError):  # it is there to be looked at: nothing waits for it
                write_json(self.folder / "status.json", status, patient=False)


@dataclass(frozen=True)
class Outcome:
    folder: Path
    report: Path
    link: links.Link | None  # how to open the comparison; None where the tracking server was away
    estimate: str  # how long it was thought to take, and took


def prepare_all(
    study: Study, workspace: Workspace, journal: Journal, progress: Progress, hands: Hands | None = None
) -> Plan:
    """Render and pack what is not packed yet; the plan knows the fingerprints. ``hands``: who decodes, as for ``prepare``."""
    for dataset in study.datasets:
        workspace.settle(dataset, progress)
    workspace.check_sources(study)
    if any(d.phantom is not None and not workspace.packed(d).exists() for d in study.datasets):
        journal.step("phantoms")
        for dataset in study.datasets:
            if not workspace.packed(dataset).exists():
                workspace.render(dataset, progress)
    journal.step("prepare")
    packed = {
        d.name: Curves.open(workspace.packed(d)) if d.curves else _prepared(workspace, d, progress, hands)
        for d in study.datasets
    }
    for p in packed.values():
        p.require_queries()
        for arm in study.arms:
            if arm.training.per_identity is not None:
                p.require_identities(arm.training.batch_size // arm.training.per_identity, f"Arm {arm.name!r}")
    return Plan(study, {n: p.fingerprint for n, p in packed.items()}, tuple(n for n, p in packed.items() if p.phantom))


def _prepared(workspace: Workspace, dataset: Dataset, progress: Progress, hands: Hands | None) -> PackedDataset:
    """``prepare``, but what goes wrong may name files and so people: that is for ``marginlab prepare``'s own terminal."""
    try:
        return workspace.prepare(dataset, progress, hands=hands)
    except InputError as e:
        if dataset.root is None or dataset.name not in READERS:
            raise
        raise InputError(
            f"Dataset {dataset.name!r} cannot be prepared. For the reason: marginlab prepare {dataset.name} {dataset.root} "
            f"--size {dataset.size} --label {dataset.label} --unreadable {dataset.unreadable:g}"
        ) from e


def run_study(
    study: Study,
    workspace: Workspace,
    *,
    on_step: Callable[[str], None],
    progress: Progress,
    on_trouble: Callable[[str], None],
    on_note: Callable[[str], None] = lambda sentence: None,
    address: str | None = None,
    cpus: int | None = None,
    tracking_uri: str | None = None,
    allow_embeddings: bool = False,
    fresh: bool = False,
    study_database: str | None = None,
) -> Outcome:
    """Do a whole study, or what is left of it.

    Args:
        on_step: called with each step's name as it begins (``watching.STEPS``).
        progress: called with (what, done, total) while data is rendered and prepared.
        on_trouble: called with a sentence for what does not stop the study, such as a tracking server that went away.
        on_note: called with a sentence worth reading, such as how long it will take.
        address: a Ray cluster; by default Ray is started here, with ``cpus`` CPUs (by default all).
        tracking_uri: an MLflow server; by default a database in the workspace.
        fresh: begin anew; a study of this name is moved aside, not deleted.
        study_database: where the searches are kept: ``postgresql://user@host/database``, or ``sqlite`` for a file in the study's
            folder. By default what MARGINLAB_STUDY_DATABASE says, else where they are, else that file.

    Raises:
        InputError: what the user can mend, in a sentence. Somebody else being at work on the study is one.
        Stopped: the study was asked to stop (``stopping.ask``). Run again, it carries on.
    """
    lock = workspace.lock(study.name)
    with _alone(workspace, study.name, on_trouble), bucket.beating(lock), named(study_database):
        bucket.check(workspace.root, writable=True)
        workspace.fetch(study.name, exact=True)
        stopping.clear(workspace.study(study.name))
        return _run_study(
            study,
            workspace,
            on_step,
            progress,
            on_trouble,
            on_note,
            address,
            cpus,
            tracking_uri,
            allow_embeddings,
            fresh,
        )


@contextmanager
def _alone(workspace: Workspace, name: str, on_trouble: Callable[[str], None]) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(workspace.lock(name), needed=True))
        except Held as e:
            raise InputError(
                f"The study {name!r} is already {e}: wait for it, look at it (marginlab status {name} --follow), or stop it there."
            ) from None
        except OSError as e:
            if e.errno not in NO_LOCKS:
                raise InputError(
                    f"{workspace.lock(name)} cannot be written ({e.strerror}): make room, or name another --workspace."
                ) from e
            on_trouble(
                f"This file system has no locks ({e.strerror}): see to it that nobody else runs the study {name!r}."
            )
        yield


def _run_study(
    study: Study,
    workspace: Workspace,
    on_step: Callable[[str], None],
    progress: Progress,
    on_trouble: Callable[[str], None],
    on_note: Callable[[str], None],
    address: str | None,
    cpus: int | None,
    tracking_uri: str | None,
    allow_embeddings: bool,
    fresh: bool,
) -> Outcome:
    from marginlab.cluster.conduct import conduct
    from marginlab.cluster.decoding import on_ray
    from marginlab.cluster.preflight import preflight
    from marginlab.cluster.session import given, machines, session
    from marginlab.estimate import against, estimate
    from marginlab.report import write_report
    from marginlab.results import Results

    folder = workspace.study(study.name)
    journal = Journal(None, on_step)
    database = choose(folder, fresh=fresh)
    if bucket.key_of(folder) is not None and isinstance(database, Sqlite):
        raise InputError(
            f"In a workspace in object storage ({workspace}) the searches are in PostgreSQL, so that they outlive this machine: "
            "--study-database postgresql://USER@HOST/DATABASE, or MARGINLAB_STUDY_DATABASE."
        )
    require_alone(study.name, database, on_trouble)
    tracker = Tracker(workspace.root, folder, tracking_uri, allow_embeddings=allow_embeddings)
    with Apart(tracker) as tracking, ExitStack() as ray:
        if tracking_uri is not None:
            tracking.do(Tracker.reach)  # a server that is not there is said before anything is done
        hands = None
        # A cluster decodes on all of its nodes; a Ray of this machine's is started when there is something to train on.
        if given(address):
            journal.step("ray")
            ray.enter_context(session(address, cpus))
            hands = on_ray
        plan = prepare_all(study, workspace, journal, progress, hands)
        if not fresh:
            refuse_changes(folder, plan)
        packed = {d.name: str(workspace.packed(d)) for d in study.datasets}
        finished = False
        try:
            if hands is None:
                journal.step("ray")
                ray.enter_context(session(address, cpus))
            there = machines()
            preflight(study, there)
            if fresh and (moved := workspace.set_aside(study.name)):
                on_trouble(f"The study of this name was moved to {moved}.")
            remember(folder, database)
            declare(folder, plan)
            journal.folder = folder
            journal.step("estimate")
            forecast = estimate(plan, workspace, there, folder).without("ray")
            on_note(forecast.sentence())
            hindered = partial(hindrance, folder)
            with Telling(on_trouble, partial(synced, tracking, folder), hindered):
                conduct(plan, folder, packed, there, journal.step)
            ray.close()
            with Telling(on_trouble, hindered):
                journal.step("tracking")
                link = _recorded(tracking, packed, on_trouble)
                journal.step("report")
                write_summary(folder, plan, journal)
                results = Results.open(folder)
                report = write_report(results, folder / "report", link)
                _uploaded(tracking, report.parent, answered(results), on_trouble)
            finished = True
        finally:
            ray.close()
            journal.step("done" if finished else "stopped")
            if not finished and journal.folder is not None:
                _interrupted(tracking, folder, plan, journal)
    truth = against(forecast, journal.seconds)
    write_summary(folder, plan, journal)
    return Outcome(folder, report, link, truth)


def _recorded(tracking: Apart, packed: dict[str, str], on_trouble: Callable[[str], None]) -> links.Link | None:
    """Bring MLflow up to date, with champions and the comparison's link; None where the server is away."""
    try:
        tracking.do(Tracker.sync)
        tracking.do(champion.register, packed)
        return tracking.do(links.comparison)
    except TrackingAway as e:
        on_trouble(str(e))
        return None


def _interrupted(tracking: Apart, folder: Path, plan: Plan, journal: Journal) -> None:
    """Keep what the session took, and let MLflow know that nobody is at work any more; if either can be done."""
    with suppress(OSError, StorageInternalError, sqlite3.Error, DatabaseAway):
        write_summary(folder, plan, journal, patient=False)
    with suppress(OSError, TrackingAway):
        tracking.do(Tracker.sync, at_work=False)


def _uploaded(tracking: Apart, report: Path, answer: str, on_trouble: Callable[[str], None]) -> None:
    try:
        tracking.do(Tracker.finish, report, answer)
    except TrackingAway as e:
        on_trouble(str(e))


class Telling:
    """A thread that tells the user, in the sentences of ``looks``, what the study is waiting for."""

    def __init__(self, on_trouble: Callable[[str], None], *looks: Callable[[], str]) -> None:
        self.on_trouble, self.looks = on_trouble, looks
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _loop(self) -> None:
        told: set[str] = set()
        while not self.over.wait(SYNC_PERIOD_S):
            now = {sentence for look in self.looks if (sentence := look())}
            for sentence in now - told:
                self.on_trouble(sentence)
            told = now


def synced(tracking: Apart, folder: Path) -> str:
    """Bring MLflow up to date while a study runs. A sentence where MLflow is away, or nothing."""
    try:
        bucket.fetch_runs(folder / "runs", HEAVY)
        bucket.fetch(folder / faults.FOLDER)
        tracking.do(Tracker.sync)
    except TrackingAway as e:
        return str(e)
    except OSError:
        pass  # the tracker signs its place in the folder: what hinders it hinders the study, which tells of it
    return ""


def write_summary(folder: Path, plan: Plan, journal: Journal, patient: bool = True) -> None:
    """Seconds by step (added up over the times the study was run), searches, machine and code."""
    path = folder / "summary.json"
    before = read_json(path)["steps"] if path.exists() else {}

    def searches() -> dict[str, Any]:
        return read_progress(of(folder), plan)

    steps = {k: round(before.get(k, 0.0) + v - journal.kept.get(k, 0.0), 2) for k, v in journal.seconds.items()}
    journal.kept = dict(journal.seconds)
    write_json(
        path,
        {
            "steps": {**before, **steps},
            "searches": patiently(searches, lambda e: isinstance(e, DatabaseAway)) if patient else searches(),
            "machine": {
                "host_cpus": os.cpu_count(),
                "python": platform.python_version(),
                "system": platform.platform(),
            },
            "commit": git_commit(),
        },
        patient,
    )


def git_commit() -> str | None:
    """The commit of the working folder's repository, with ``+`` where files differ from it; None outside one.

    In a job it is that of the repository which the code was sent from.
    """
    if (note := Path(NOTE)).exists():
        return read_json(note)["commit"]  # type: ignore[no-any-return]
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
