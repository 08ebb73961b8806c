"""Keeps MLflow in step with a study's run folders. A folder is the truth of its run; what MLflow has is a projection.

The study is one MLflow run, and every trial and confirmation run a child of it. How far a child has got is a tag of the
child itself, logged in the same call as the metrics; a metric's timestamp is its row's own time, and MLflow keeps a point
that is logged twice with the same time once. So a sync may be cut off anywhere, and the next one carries on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marginlab.files import read_json, read_lines, write_json
from marginlab.lock import locked
from marginlab.runs import OBJECTIVE
from marginlab.tracking import describe, models, notes, preview
from marginlab.tracking.store import Store, TrackingAway, connect
from marginlab.tracking.views import PARENT
from marginlab.values import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.entities import Run as MlflowRun

_BATCH = 800  # metric points per call; MLflow takes 1000 points, parameters and tags, of which 100 may be parameters
_PARAMS = 100
_PAGE = 100  # runs per answer, with all that they hold: what is read is soon let go
_PATIENCE_S = 15.0  # before a server that was away is asked again

_LOGGED = "marginlab.logged"  # "epoch@milliseconds" of the last row that was logged
_NO_ROW = (-1, 0)  # described, that is, with parameters and dataset
_ENDED = "marginlab.ended"  # the time in result.json, once all that follows from a run's end is there
_PARENT_FORM = "marginlab.form"  # of the study's run: what it is described in
_FORM = "v2"  # of what follows from it: a run that ended under another one is ended again


@dataclass
class _Child:
    """What this process knows of a run's projection."""

    id: str
    place: str  # where its artifacts go
    fresh: bool = False  # made by this process, which has made no model for it: none has to be looked for
    logged: tuple[int, int] | None = None  # epoch and timestamp of the last logged row; None: not even described
    ended: str = ""
    state: str = "running"
    seen: tuple[Any, ...] = ()  # size and times of the folder's files when last looked at

    @classmethod
    def of(cls, run: MlflowRun) -> _Child:
        tags = run.data.tags
        epoch, _, at = tags.get(_LOGGED, "").partition("@")
        return cls(
            run.info.run_id,
            run.info.artifact_uri,
            logged=(int(epoch), int(at)) if at else None,
            ended=tags.get(_ENDED, ""),
            state=tags.get("state", "running"),
        )


class _Batch:
    """What is to be logged of a run, in as few calls as there can be: what a call costs is hardly its contents.

    Each call has the tag that says how far it got, with its last points: MLflow writes tags last.
    """

    def __init__(self, client: MlflowClient, child: _Child) -> None:
        self.client, self.child = client, child
        self.params: list[Param] = []
        self.metrics: list[Metric] = []
        self.tags: dict[str, str] = {}
        self.logged = child.logged

    def describe(self, run: dict[str, Any]) -> None:
        """A run's dataset (its fingerprint, which names nobody) and its parameters."""
        from mlflow.entities import Param

        _give(self.client, self.child.id, run["dataset"], run["data"])
        self.params = [Param(k, v) for k, v in describe.flatten(run["training"]).items()]
        self._got_to(*_NO_ROW)

    def row(self, row: dict[str, Any]) -> int:
        """A row is logged whole. Returns the number of its points."""
        from mlflow.entities import Metric

        at = describe.stamp(row["time"])
        points = [Metric(k, v, at, row["epoch"]) for k, v in describe.points(row).items()]
        if len(self.metrics) + len(points) > _BATCH:
            self.send()
        self.metrics += points
        self._got_to(row["epoch"], at)
        return len(points)

    def give_to_model(self, point: Metric) -> None:
        """A point that the run has, or is about to get: the model gets it too, in its place, so that all arrive in order."""
        for i, m in enumerate(self.metrics):
            if (m.key, m.step) == (point.key, point.step):
                self.metrics[i] = point
                return
        self.metrics.append(point)

    def _got_to(self, epoch: int, at: int) -> None:
        self.logged, self.tags[_LOGGED] = (epoch, at), f"{epoch}@{at}"

    def send(self) -> None:
        from mlflow.entities import RunTag

        for i in range(_PARAMS, len(self.params), _PARAMS):
            self.client.log_batch(self.child.id, params=self.params[i : i + _PARAMS])
        for i in range(_BATCH, len(self.metrics), _BATCH):
            self.client.log_batch(self.child.id, metrics=self.metrics[i : i + _BATCH])
        tags = [RunTag(k, v) for k, v in self.tags.items()]
        self.client.log_batch(self.child.id, self.metrics[:_BATCH], self.params[:_PARAMS], tags)
        self.params, self.metrics, self.tags = [], [], {}
        self.child.logged = self.logged


class Tracker:
    """Projects one study's folder into MLflow. Made by the driver, used in a process beside it (apart.py).

    Args:
        workspace: where ``mlflow.db`` and ``mlruns/`` are, unless a ``uri`` is given.
        study_folder: with ``study.json`` and ``runs/``.
        uri: a tracking URI.
        allow_embeddings: send embeddings of other datasets than phantoms even to a server elsewhere. They are biometric.
    """

    def __init__(
        self, workspace: Path, study_folder: Path, uri: str | None = None, *, allow_embeddings: bool = False
    ) -> None:
        self.workspace, self.folder, self.uri = Path(workspace).resolve(), Path(study_folder).resolve(), uri
        self.allow_embeddings = allow_embeddings
        self._began = time.time()
        self._commit = _git_commit()
        self._token = secrets.token_hex(8)  # of this process, in tracking.json
        self._away: tuple[float, TrackingAway] | None = None
        self._forget()

    def reach(self) -> None:
        """Raises TrackingAway where MLflow does not answer, within seconds."""
        connect(self.workspace, self.uri)

    def sync(self, at_work: bool = True) -> dict[str, int]:
        """Bring MLflow up to date.

        A complete run is FINISHED; so is a pruned one, which did what was asked of it (the tag ``state`` tells them
        apart); a failed one is FAILED, with the tag ``reason``; one without a result is RUNNING.

        Args:
            at_work: whether somebody is at work on the study. If not, runs without a result are KILLED (``state``:
                interrupted) until somebody goes on with them, and so is the study's run.

        Returns:
            How many runs were made, metric points logged and runs ended by this call.

        Raises:
            TrackingAway: MLflow does not answer. A later call catches up; for 15 seconds calls fail without asking again.
        """
        if self._away and time.monotonic() < self._away[0]:
            raise self._away[1]
        try:
            with self.opened() as store:
                return self._sync(store, at_work)
        except TrackingAway as e:
            self._away = (time.monotonic() + _PATIENCE_S, e)
            raise

    def finish(self, report: Path, answer: str = "") -> None:
        """Project what is left, attach a report's folder (page, tables, figures) and its answer to the study's run, and end it."""
        with self.opened() as store:
            self._sync(store, True)
            self._attach_report(store, report, answer)
            store.client.set_terminated(self.parent, "FINISHED")
            self._parent_ended = True

    def attach(self, report: Path, answer: str = "") -> None:
        """Attach a report to the study's run, whatever state that is in."""
        with self.opened() as store:
            self._attach_report(store, report, answer)

    def _attach_report(self, store: Store, report: Path, answer: str) -> None:
        if report.is_dir():
            store.client.log_artifacts(self.parent, str(report), "report")
        if answer:
            store.client.set_tag(self.parent, notes.NOTE, self._note(answer))

    def run_of(self, folder: str) -> str:
        """The id of MLflow's run for a run folder (relative to the study's) that was synced."""
        return self._children[folder].id

    @contextlib.contextmanager
    def opened(self) -> Iterator[Store]:
        """The connection, with this tracker as the only one at work on the study's folder."""
        if not (self.folder / "study.json").exists():
            raise InputError(f"{self.folder} holds no study.json: it is not the folder of a study.")
        with locked(self.folder / ".tracking.lock", wait=True):
            if self._take() != self._token:  # another process was here: what we remember may be old
                self._forget()
            try:
                store = self._store or connect(self.workspace, self.uri)
                with store.answering():
                    self._attach(store)
                    yield store
            except BaseException:
                self._forget()
                raise

    def _take(self) -> str:
        """Sign ``tracking.json``; returns who signed it before. Its ``id`` is what MLflow's runs are found by."""
        path = self.folder / "tracking.json"
        record = read_json(path) if path.exists() else {"id": secrets.token_hex(8), "writer": ""}
        self.id, before = record["id"], record["writer"]
        if before != self._token:
            write_json(path, {**record, "writer": self._token})
        return str(before)

    def _forget(self) -> None:
        self._record: dict[str, Any] = {}  # study.json
        self.declared: dict[str, Any] = {}  # to_json of the study, in it
        self._store: Store | None = None
        self._children: dict[str, _Child] = {}
        self.experiment = self.parent = ""
        self._parent_ended = False

    def _attach(self, store: Store) -> None:
        """Find the study's run and its children, or make the former."""
        if self._store is not None:
            return
        self._record = read_json(self.folder / "study.json")
        self.declared = self._record["study"]
        self.experiment = store.experiment(self.declared["name"])
        mine = f"tags.`marginlab.projection` = '{self.id}'"
        parents = list(search(store.client, self.experiment, f"{mine} and tags.kind = 'study'", everything=True))
        if parents:
            parent = parents[0].info
            self.parent, self._parent_ended = parent.run_id, parent.status != "RUNNING"
            if parent.lifecycle_stage == "deleted":
                store.client.restore_run(parent.run_id)
            if parents[0].data.tags.get(_PARENT_FORM) != _FORM:
                self._describe_parent(store.client)
        else:
            self.parent = self._make_parent(store.client)
        for run in search(store.client, self.experiment, f"{mine} and tags.kind != 'study'"):
            name, found = run.data.tags["marginlab.run_folder"], _Child.of(run)
            if other := self._children.get(name):
                # A server whose answer was lost was asked twice to make it: the one that has got further stays.
                other, found = sorted((other, found), key=lambda c: (bool(c.ended), c.logged or (-2, 0)))
                store.client.delete_run(other.id)
            self._children[name] = found
        self._away, self._store = None, store

    def _make_parent(self, client: MlflowClient) -> str:
        study = self.declared
        tags = {"kind": "study", "study": study["name"], "marginlab.projection": self.id, **self._git()}
        self.parent = client.create_run(self.experiment, tags=tags, run_name=study["name"]).info.run_id
        self._describe_parent(client)
        return self.parent

    def _describe_parent(self, client: MlflowClient) -> None:
        for name, fingerprint in self._record["data"].items():
            _give(client, self.parent, name, fingerprint)
        client.set_tag(self.parent, notes.NOTE, self._note())
        client.set_tag(self.parent, _PARENT_FORM, _FORM)

    def _note(self, answer: str = "") -> str:
        return notes.study_note(self.declared, self._record["data"], self._record["phantoms"], answer)

    def _git(self) -> dict[str, str]:
        return {"git.sha": self._commit, "mlflow.source.git.commit": self._commit} if self._commit else {}

    def _sync(self, store: Store, at_work: bool) -> dict[str, int]:
        counts = {"runs": 0, "points": 0, "ended": 0}
        for name in self.folders():
            path, child = self.folder / name, self._children.get(name)
            seen = (*_look(path / "epochs.jsonl"), *_look(path / "result.json"), at_work)
            if child is None or child.seen != seen:
                child = self._project(store, name, child, at_work, counts)
                child.seen = seen  # taken before reading: what was written since is seen next time
        if not at_work and not self._parent_ended:
            status = self.folder / "status.json"
            done = status.exists() and read_json(status)["step"] == "done"
            store.client.set_terminated(self.parent, "FINISHED" if done else "KILLED")
            self._parent_ended = True
        going_on = counts["runs"] or any(c.state == "running" for c in self._children.values())
        if at_work and self._parent_ended and going_on:
            store.client.update_run(self.parent, status="RUNNING")
            self._parent_ended = False
        return counts

    def folders(self) -> Iterator[str]:
        """All run folders, relative to the study's. A known one is not walked into."""
        for place, folders, files in os.walk(self.folder / "runs"):
            name = os.path.relpath(place, self.folder)
            if name in self._children or "run.json" in files:
                folders.clear()
                yield name
            folders.sort()

    def _project(self, store: Store, name: str, child: _Child | None, at_work: bool, counts: dict[str, int]) -> _Child:
        path, client = self.folder / name, store.client
        result = read_json(path / "result.json") if (path / "result.json").exists() else None
        if child and result and self._is_done(child, result):
            return child
        record = read_json(path / "run.json")
        rows = sorted({r["epoch"]: r for r in read_lines(path / "epochs.jsonl")}.items())
        times = {epoch: describe.stamp(row["time"]) for epoch, row in rows}
        if child and child.logged and child.logged != _NO_ROW and times.get(child.logged[0]) != child.logged[1]:
            # The run was begun anew since: its points cannot be taken back one by one.
            if model := models.best_of(client, self.experiment, child.id):
                client.delete_logged_model(model.model_id)
            client.delete_run(child.id)
            child = None
        if child is None:
            child = self._make_child(store, name, record, min(times.values(), default=None), result)
            self._children[name] = child
            counts["runs"] += 1
        batch = _Batch(client, child)
        if child.logged is None:
            batch.describe(record["run"])
        last, _ = child.logged or _NO_ROW
        counts["points"] += sum(batch.row(row) for epoch, row in rows if epoch > last)
        if result is not None:
            self._end(store, name, record, batch, result, dict(rows))
            counts["ended"] += 1
            return child
        batch.send()
        if not at_work and child.state != "interrupted":
            self._mark_open(client, child, "interrupted", "KILLED")
        elif at_work and child.state != "running":  # it is gone on with
            self._mark_open(client, child, "running", "RUNNING")
        return child

    @staticmethod
    def _mark_open(client: MlflowClient, child: _Child, state: str, status: str) -> None:
        """A run without a result: nothing that followed from an end holds any more."""
        from mlflow.entities import RunTag

        client.log_batch(child.id, tags=[RunTag(_ENDED, ""), RunTag("state", state), RunTag("reason", "")])
        client.update_run(child.id, status=status)
        child.ended, child.state = "", state

    def _make_child(
        self, store: Store, name: str, record: dict[str, Any], start: int | None, result: dict[str, Any] | None
    ) -> _Child:
        client = store.client
        # The commit of a run that ended before this process began is not known.
        git = self._git() if result is None or result["time"] >= self._began else {}
        tags = {**describe.run_tags(record, name), **git, "marginlab.projection": self.id}
        if result is None:  # else its end says how it stands
            tags |= {"state": "running", notes.NOTE: notes.run_note(record, name)}
        made = client.create_run(
            self.experiment,
            start_time=start or describe.stamp((self.folder / name / "run.json").stat().st_mtime),
            tags={**tags, PARENT: self.parent},
            run_name=describe.run_name(record["labels"], self.declared),
        )
        return _Child(made.info.run_id, made.info.artifact_uri, fresh=True)

    def _end(
        self,
        store: Store,
        name: str,
        record: dict[str, Any],
        batch: _Batch,
        result: dict[str, Any],
        rows: dict[int, dict[str, Any]],
    ) -> None:
        from mlflow.entities import Metric

        client, child = store.client, batch.child
        path, at = self.folder / name, describe.stamp(result["time"])
        step, last = result["best_epoch"] or 0, rows.get(max(rows, default=0), {})
        weights, run = path / "best.safetensors", record["run"]
        of: dict[str, str] = {}  # what a figure of the best network is a figure of
        if result["state"] == "complete" and weights.exists():
            title, fresh = describe.run_name(record["labels"], self.declared), child.fresh
            child.fresh = False
            model = models.linked(client, self.experiment, child.id, title, record, step, fresh)
            of = {"model_id": model, "dataset_name": run["dataset"], "dataset_digest": run["data"][:36]}
        batch.metrics += [Metric(k, v, at, step, **of) for k, v in describe.final_points(result).items()]
        batch.metrics += [Metric(k, v, at, last["epoch"]) for k, v in describe.final_margins(last).items()]
        if of and step in rows:
            best = Metric(OBJECTIVE, rows[step][OBJECTIVE], describe.stamp(rows[step]["time"]), step, **of)
            batch.give_to_model(best)
        tags = {"state": result["state"], "best_epoch": result["best_epoch"], "reason": result["reason"] or None}
        tags[notes.NOTE] = notes.run_note(record, name, result, describe.margins_text(last))
        batch.tags |= {k: str(v) for k, v in tags.items() if v is not None}
        batch.send()
        if weights.exists():
            store.put(child.place, weights)
        for part in self._embeddings(store, record, path):
            store.put(child.place, part, "embeddings")
            store.put_text(child.place, preview.picture(part), f"embeddings/{part.stem}.svg")
        client.set_terminated(child.id, "FAILED" if result["state"] == "failed" else "FINISHED", at)
        child.ended, child.state = self._mark(result), result["state"]
        # The mark goes last: whatever is cut off before is done again.
        client.set_tag(child.id, _ENDED, child.ended)

    def _embeddings(self, store: Store, record: dict[str, Any], path: Path) -> list[Path]:
        """Those that may go there; their pictures go with them. Test embeddings exist where the test split was opened."""
        if not (record["labels"].get("phantom") is True or store.stays_home or self.allow_embeddings):
            return []
        files = [path / "embeddings" / f"{part}.parquet" for part in ("validation", "test")]
        return [f for f in files if f.exists()]

    def _mark(self, result: dict[str, Any], allowed: bool | None = None) -> str:
        allowed = self.allow_embeddings if allowed is None else allowed
        return f"{result['time']!r} {_FORM}{' with embeddings' if allowed else ''}"

    def _is_done(self, child: _Child, result: dict[str, Any]) -> bool:
        # Embeddings that were held back go out once they are allowed, and are not asked back when no longer.
        return child.ended in (self._mark(result), self._mark(result, allowed=True))


def _give(client: MlflowClient, run: str, name: str, fingerprint: str) -> None:
    """Name a dataset as a run's input."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(name=name, digest=fingerprint[:36], source_type="marginlab", source="{}")
    client.log_inputs(run, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


def search(client: MlflowClient, experiment: str, where: str, everything: bool = False) -> Iterator[MlflowRun]:
    from mlflow.entities import ViewType

    view = ViewType.ALL if everything else ViewType.ACTIVE_ONLY
    token: str | None = None
    while True:
        page = client.search_runs([experiment], where, view, max_results=_PAGE, page_token=token)
        token = page.token
        yield from page
        if not token:
            return


def _look(path: Path) -> tuple[int, int]:
    try:
        s = path.stat()
    except FileNotFoundError:
        return (-1, -1)
    return (s.st_size, s.st_mtime_ns)


def _git_commit() -> str | None:
    """The commit of the working folder's repository, or None."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
