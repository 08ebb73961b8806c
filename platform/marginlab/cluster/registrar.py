"""The registrar: one actor on the head node that holds a study's searches and is the only writer of their storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from marginlab.cluster.session import NAMESPACE
from marginlab.declaration import read_plan
from marginlab.runs import Recorder, RunFolder
from marginlab.search import Book
from marginlab.values import InputError

HEAD = {"node:__internal_head__": 0.001}  # pins an actor to the head node and costs no CPU


class Registrar:
    """:class:`marginlab.search.Book` behind Ray. Restarted by Ray, it finds its trials in the storage."""

    def __init__(self, study_folder: str, session: str) -> None:
        self.folder = Path(study_folder)
        self.folders: dict[str, list[Path]] = {}  # by token
        self.plan = read_plan(self.folder)
        self.book = Book(self.plan, f"sqlite:///{self.folder / 'optuna.db'}", session)

    def ask(self, token: str) -> dict[str, Any] | str:
        """A trial with its run folders (made here, one per fold), or ``wait`` or ``finished``."""
        while not isinstance(ticket := self.book.ask(token), str):
            try:
                tasks = [
                    self.plan.trial(ticket.key, ticket.number, ticket.params, fold)
                    for fold in self.plan.study.search.folds
                ]
            except InputError as e:  # parameters that do not go together
                self.book.tell(token, "failed", str(e))
                continue
            folders = [RunFolder.create(self.folder / t.folder, t.run, t.labels).path for t in tasks]
            self.folders[token] = folders
            return {"token": token, "dataset": ticket.key.dataset, "folders": [str(f) for f in folders]}
        return ticket

    def report(self, token: str, step: int, value: float) -> bool:
        return self.book.report(token, step, value)

    def tell(self, token: str, state: str, reason: str = "") -> None:
        """End a trial here and in its run folders: those that its process left open, or never began, get a result too."""
        self.book.tell(token, state, reason)
        for path in self.folders.pop(token, []):
            folder = RunFolder.open(path)
            if folder.result() is None:
                Recorder(folder).finish(state, reason or "The trial ended in an earlier fold.")

    def over(self) -> bool:
        """Whether all budgets are spent and nobody is at work."""
        return self.book.over()

    def winners(self) -> list[tuple[Any, dict[str, Any] | None]]:
        return [(key, self.book.winner(key)) for key in self.plan.searches()]


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
    return actor.remote(str(study_folder), session)


def find(name: str) -> Any:
    return ray.get_actor(name, namespace=NAMESPACE)
