"""Where everything of a user lives: one folder.

data/<dataset>-<id>/     packed datasets; raw/<dataset>-<id>/ rendered phantoms
studies/<study>/         study.json, optuna.db (or storage.json), runs/, summary.json, report/; studies/<study>.lock while one is at work on it
mlflow.db, mlruns/       the tracking store, unless a server is used

A workspace in object storage is a folder of this machine's too, which is kept in step with it (bucket/).
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from marginlab import bucket
from marginlab.data.adding import restore
from marginlab.data.decoding import Hands
from marginlab.data.packed import WITNESS, PackedDataset
from marginlab.data.readers import reader as reader_named
from marginlab.data.store import prepare
from marginlab.lock import Held, held, locked
from marginlab.runs import HEAVY
from marginlab.simulated import Curves
from marginlab.study import Dataset, Study
from marginlab.values import InputError, fingerprint

Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Workspace:
    root: Path

    @classmethod
    def at(cls, root: Path | str) -> Workspace:
        """A folder, or ``s3://BUCKET/PREFIX``.

        Raises:
            InputError: the object storage does not answer, or refuses.
        """
        if not bucket.named(root):
            return cls(Path(root).absolute())
        space = cls(bucket.folder_of(root))
        bucket.check(space.root)
        return space

    def __str__(self) -> str:
        return bucket.shown(self.root)

    def study(self, name: str) -> Path:
        return self.root / "studies" / name

    def lock(self, name: str) -> Path:
        """The lock of a study, held by who is at work on it. It lies beside the folder, so that the folder can be moved."""
        return self.root / "studies" / f"{name}.lock"

    def set_aside(self, name: str) -> Path | None:
        """Move a study's folder out of the way; returns where it is now, None where there was none."""
        folder = self.study(name)
        if not folder.exists():
            return None
        aside = folder.with_name(f"{name}.{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        bucket.move(folder, aside)
        return aside

    def at_work(self, name: str) -> bool:
        """Whether somebody works on a study."""
        return held(self.lock(name)) or bucket.beats(self.lock(name))

    def fetch(self, name: str, *, light: bool = False, exact: bool = False) -> None:
        """Have a study here that is in object storage, but for what only its own workers need.

        Args:
            light: neither weights nor embeddings.
            exact: and nothing else: this process is about to work on the study.
        """

        def wanted(file: str) -> bool:
            return not light or file.endswith((".json", ".jsonl", ".py"))

        if exact or not held(self.lock(name)):  # who holds it is on this machine, and ahead of what was sent
            bucket.fetch(
                self.study(name), lambda file: wanted(file) and file.rpartition("/")[2] not in HEAVY, exact=exact
            )

    def fetch_for(self, study: Study, progress: Progress = lambda *_: None) -> None:
        """Have here what is in object storage of a study and its datasets."""
        self.fetch(study.name)
        for dataset in study.datasets:
            self.settle(dataset, progress)

    def fetch_all(self) -> None:
        """Have here what is in object storage of all studies."""
        for name in self.studies():
            self.fetch(name)

    def studies(self) -> list[str]:
        bucket.fetch(self.root / "studies", lambda file: file.endswith("/study.json") and file.count("/") == 1)
        return sorted(p.parent.name for p in (self.root / "studies").glob("*/study.json"))

    def packed(self, dataset: Dataset) -> Path:
        """The folder of a packed dataset, named after all that decides its content; that of recorded curves is the user's."""
        if dataset.curves is not None:
            return Path(dataset.curves).expanduser().absolute()
        return self.root / "data" / f"{dataset.name}-{self._id(dataset)}"

    def raw(self, dataset: Dataset) -> Path:
        """The folder of raw files: the data provider's, or where the phantom is rendered."""
        return (
            Path(dataset.root).expanduser()
            if dataset.root
            else self.root / "raw" / f"{dataset.name}-{self._id(dataset)}"
        )

    @staticmethod
    def _id(dataset: Dataset) -> str:
        resolved = (
            dataclasses.replace(dataset, root=str(Path(dataset.root).expanduser().absolute()))
            if dataset.root
            else dataset
        )
        return fingerprint(resolved, 10)

    def render(self, dataset: Dataset, progress: Progress) -> None:
        """Write a phantom's raw files, whole or not at all."""
        raw = self.raw(dataset)
        if dataset.phantom is None or raw.exists():
            return
        from marginlab.data.phantom import write

        with self._alone(raw, progress):
            if raw.exists():
                return
            partial = raw.with_name(raw.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            write(dataset.phantom, partial, lambda done, total: progress(f"phantom {dataset.name}", done, total))
            partial.rename(raw)

    @contextmanager
    def _alone(self, folder: Path, progress: Progress) -> Iterator[None]:
        """One process at a time makes a folder of data; studies that share it wait for the one that began."""
        lock = self.root / ".locks" / f"{folder.parent.name}-{folder.name}"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lock))
            except Held as e:
                progress(f"waiting: {folder.name} is {e}", 0, 1)
                stack.enter_context(locked(lock, wait=True))
            yield

    def prepare(
        self,
        dataset: Dataset,
        progress: Progress,
        *,
        extend: bool = False,
        workers: int | None = None,
        hands: Hands | None = None,
    ) -> PackedDataset:
        """The packed dataset, prepared first where it is not there yet, or brought up to its raw folder (``extend``)."""
        folder = self.packed(dataset)
        self.settle(dataset, progress)
        if folder.exists() and not extend:
            return PackedDataset.open(folder)
        self.render(dataset, progress)
        if bucket.key_of(self.raw(dataset)) is not None:
            hands = None  # a phantom that was rendered on this machine, for this machine's eyes alone
        with self._alone(folder, progress):
            restore(folder)
            if folder.exists() and not extend:
                return PackedDataset.open(folder)
            made = prepare(
                dataset.reader or reader_named(dataset.name),
                self.raw(dataset),
                folder,
                name=dataset.name,
                size=dataset.size,
                label=dataset.label,
                unreadable_limit=dataset.unreadable,
                progress=lambda done, total: progress(f"prepare {dataset.name}", done, total),
                extend=extend,
                workers=workers,
                hands=hands,
            )
            bucket.send_whole(folder, WITNESS, _megabytes(f"send {dataset.name} (MB)", progress))
            return made

    def settle(self, dataset: Dataset, progress: Progress) -> None:
        """A packed dataset that is in object storage, or should be, is there and here."""
        folder = self.packed(dataset)
        fetched = bucket.fetch_whole(folder, WITNESS, _megabytes(f"fetch {dataset.name} (MB)", progress))
        if not fetched and (folder / WITNESS).exists():
            bucket.send_whole(folder, WITNESS, _megabytes(f"send {dataset.name} (MB)", progress))

    def check_sources(self, study: Study, without: Collection[str] = ()) -> None:
        """Fail before anything starts where a raw folder or reader is missing. ``without``: datasets that may be missing."""
        for dataset in study.datasets:
            if dataset.curves is not None:
                epochs = max(study.search.max_epochs, study.confirmation.epochs or 0)
                arms = [a.name for a in study.arms]
                Curves.open(self.packed(dataset)).check(dataset.name, arms, epochs, study.search.objective)
                continue
            if not self.packed(dataset).exists() and dataset.name not in without:
                if dataset.reader is None:
                    reader_named(dataset.name)
                if dataset.root and not self.raw(dataset).is_dir():
                    raise InputError(
                        f"Dataset {dataset.name!r}: there is no folder {self.raw(dataset)}. Put the images or a link to them "
                        "there, or correct root= in the study file."
                    )


def _megabytes(what: str, progress: Progress) -> bucket.Progress:
    return lambda done, total: progress(what, done >> 20, max(total >> 20, 1))
