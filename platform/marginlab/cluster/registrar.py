"""The registrar: one actor on the head node that holds a study's searches and is the only writer of their storage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from marginlab import bucket, stopping, study_database
from marginlab.cluster.session import NAMESPACE
from marginlab.declaration import read_plan
from marginlab.files import patiently
from marginlab.postgres import DatabaseAway
from marginlab.postgres_schema import DatabaseHeld
from marginlab.runs import HEAVY, Recorder, RunFolder
from marginlab.search import FINISHED, Book, Ticket
from marginlab.sole_writer import SoleWriter
from marginlab.stopwatch import Stopwatch
from marginlab.study_database import StudyDatabase
from marginlab.values import InputError

HEAD = {"node:__internal_head__": 0.001}  # pins an actor to the head node and costs no CPU
# Of a storage that is away, is locked or cannot be written.
REFUSALS = (StorageInternalError, SQLAlchemyError, OSError, DatabaseAway, DatabaseHeld)
T = TypeVar("T")


def cannot_go_on(reason: str) -> str:
    return f"The study cannot go on: {reason.rstrip('.')}. Mend it, and run the same command again to carry on."


class Registrar:
    """:class:`marginlab.search.Book` behind Ray. Restarted by Ray, it finds its trials in the storage.

    It waits for a storage that is away, is locked or cannot be written for a while, and whoever asked waits with it.

    Args:
        session: tokens of trials begin with it.
        database: where the searches are, with the password that this process's own environment may not have.
    """

    def __init__(self, study_folder: str, session: str, database: StudyDatabase | None = None) -> None:
        self.folder, self.session = Path(study_folder), session
        self.database = database or study_database.of(self.folder)
        self.storage: RDBStorage | None = None
        self.halted = ""  # why the study cannot go on
        self.failing = ""  # that too many trials have failed; it stays so where those at work then end well
        self.plan = read_plan(self.folder)
        self.watch = Stopwatch(self.folder / "search_seconds.json")
        self.stale = True  # whether the book has to be read anew
        # Where it is away, whoever asks waits for it: an actor that does not begin is never restarted.
        with suppress(*REFUSALS):
            self.book = self._open()
            self.stale = False
            self._close()

    def _open(self) -> Book:
        budget = self.plan.study.search.time_budget_s

        def late() -> bool:
            over = budget is not None and self.watch.seconds() >= budget
            if over:
                self.watch.keep(now=True)  # what is over stays over
            return over

        if self.storage is not None:
            self.storage.engine.dispose()  # or its connection would keep the new one out
            self.storage = None
        self.storage = self.database.storage()
        return Book(self.plan, SoleWriter(self.storage), self.session, late)

    def _patiently(self, do: Callable[[], T]) -> T:
        """What the storage refuses is begun again on a book read anew from it: as after a crash, nothing is done twice."""

        def again() -> T:
            if self.stale:
                self.book = self._open()
                self.stale = False
            try:
                return do()
            except REFUSALS:
                self.stale = True  # also for the next call, when this one gives up: half of it may be done
                raise

        return patiently(again, lambda e: isinstance(e, REFUSALS))

    def ask(self, token: str) -> dict[str, Any] | str:
        """A trial with its run folders (made here, one per fold), or ``wait`` or ``finished``."""
        self.watch.keep()
        if stopping.asked(self.folder) or self.trouble():
            return FINISHED
        while not isinstance(ticket := self._patiently(lambda: self.book.ask(token)), str):
            try:
                tasks = [
                    self.plan.trial(ticket.key, ticket.number, ticket.params, fold)
                    for fold in self.plan.study.search.folds
                ]
            except InputError as e:  # parameters that do not go together
                self._tell(token, "failed", str(e))
                continue
            folders = [RunFolder.create(self.folder / t.folder, t.run, t.labels).path for t in tasks]
            return {"token": token, "dataset": ticket.key.dataset, "folders": [str(f) for f in folders]}
        return ticket

    def report(self, token: str, step: int, value: float) -> bool:
        self.watch.keep()
        return self._patiently(lambda: self.book.report(token, step, value))

    def tell(self, token: str, state: str, reason: str = "") -> None:
        """End a trial here and in its run folders: those that its process left open, or never began, get a result too."""
        self.watch.keep()
        live = self._patiently(lambda: self.book.live.get(token))
        self._tell(token, state, reason)
        if live is not None:
            self._close_trial(live.ticket, state, reason)

    def _close(self) -> None:
        """Give a result to the run folders of all trials that ended: whoever ended one may have died before it did so."""
        patiently(lambda: bucket.fetch_runs(self.folder / "runs", HEAVY))
        for ticket, state, reason in self._patiently(lambda: self.book.ended()):
            self._close_trial(ticket, state, reason)

    def _close_trial(self, ticket: Ticket, state: str, reason: str) -> None:
        for fold in self.plan.study.search.folds:
            try:
                path = self.folder / self.plan.trial(ticket.key, ticket.number, ticket.params, fold).folder
            except InputError:  # parameters that do not go together never had a folder
                return
            patiently(partial(bucket.fetch, path, exact=True))  # another machine may have written it
            if (path / "run.json").exists() and not (path / "result.json").exists():
                folder = RunFolder.open(path)
                earlier = "" if folder.begun else "The trial ended in an earlier fold."
                Recorder(folder).finish(state, reason or earlier)

    def _tell(self, token: str, state: str, reason: str) -> None:
        self._patiently(lambda: self.book.tell(token, state, reason))

    def gone(self, token: str) -> None:
        """A trial's process has ended. Untold, the trial has failed, unless the study stops: then it waits for the next time."""
        if self.halted or stopping.asked(self.folder, surely=True):
            self._leave(token)
        else:
            self.tell(token, "failed", "Its process ended without a result.")

    def halt(self, token: str, reason: str) -> None:
        """The platform cannot go on with a trial, and no fault of the trial's: no other is begun, this one waits."""
        self.halted = self.halted or cannot_go_on(reason)
        self._leave(token)

    def _leave(self, token: str) -> None:
        if not self.stale:  # else its book is read anew, and who has halted or is stopping gives nothing out of that
            self.book.leave(token)

    def trouble(self) -> str:
        """Why no further trial may begin, in a sentence; empty where nothing is wrong."""
        self.failing = self.failing or self._patiently(lambda: self.book.too_many_failed())
        return self.halted or self.failing

    def over(self) -> bool:
        """Whether all budgets are spent and nobody is at work."""
        return self._patiently(lambda: self.book.over())

    def found(self) -> dict[str, dict[str, Any]]:
        """What every search has found (``search.summarize``), once all of them are over."""
        self._close()
        return self._patiently(lambda: self.book.progress())


def start(study_folder: Path, name: str, session: str) -> Any:
    actor = ray.remote(Registrar).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        resources=HEAD,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=1,
        get_if_exists=True,
    )
    # The password travels as an argument, which Ray shows nobody, and not as a variable of its runtime environment, which it does.
    return actor.remote(str(study_folder), session, study_database.of(study_folder))


def find(name: str) -> Any:
    return ray.get_actor(name, namespace=NAMESPACE)
