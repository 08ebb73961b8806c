"""Looking at it: the server for the workspace's database, and links that show the point in ten seconds.

AutoMargin against fixed margins; every run of the searches, axis by axis; one run's curves; the champion; the study with its
report. The charts behind them are in views.py.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from marginlab import bucket
from marginlab.tracking import views
from marginlab.tracking.projector import Tracker, search
from marginlab.tracking.store import ENVIRONMENT, Store, connect, default_uri
from marginlab.values import InputError

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

HOST, PORT = "127.0.0.1", 5000
_TAG, _KEY = "mlflow.sharedViewState.", "marginlab-"
_REPORT = "report/report.html"
_LEARNS_NOTHING = ("FixedMargin", "NoMargin")


@dataclass(frozen=True)
class Link:
    """How to see a study's comparison in the browser."""

    command: str | None  # starts the server; None where one is running elsewhere
    url: str  # the confirmation runs; the trials while there are none
    search_url: str  # the trials
    more: tuple[tuple[str, str], ...] = ()  # what a link shows, and it: those that ``marginlab ui`` prints


@dataclass(frozen=True)
class Shown:
    """A study in MLflow, and links to it: (what it shows, URL)."""

    study: str
    links: tuple[tuple[str, str], ...]


def comparison(tracker: Tracker, port: int = PORT) -> Link:
    """Save the study's views and return the links to them. Raises TrackingAway where MLflow does not answer."""
    with tracker.opened() as store:
        (study,) = search(store.client, tracker.experiment, f"attributes.run_id = '{tracker.parent}'")
        page = _Page(store, study, port)
        urls = {kind: page.policies(kind) for kind in ("trial", "confirmation")}
        more = page.links()
        remote = store.uri.startswith("http")
    confirmed = any("/confirmation-" in folder for folder in tracker.folders())
    command = None if remote else f"marginlab ui --workspace {shlex.quote(bucket.shown(tracker.workspace))}"
    return Link(command, urls["confirmation" if confirmed else "trial"], urls["trial"], tuple(more))


def known(workspace: Path, port: int = PORT, uri: str | None = None) -> list[Shown]:
    """The studies in the workspace's database, or at a tracking URI, and links to them.

    A study in progress has those links that it has runs for. In the workspace's database the views behind the links are
    brought up to date; elsewhere they are as the last sync left them, and whoever may read may ask.
    """
    if uri is None and not (workspace / "mlflow.db").exists():
        return []
    store = connect(workspace, uri)
    found = []
    with store.answering():
        for experiment in store.client.search_experiments(order_by=["name ASC"]):
            for study in search(store.client, experiment.experiment_id, "tags.kind = 'study'"):
                if "marginlab.projection" in study.data.tags:
                    found.append(
                        Shown(study.data.tags["study"], tuple(_Page(store, study, port, saving=uri is None).links()))
                    )
    return found


def server(workspace: Path, port: int = PORT) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of MLflow's server on the workspace's database: this machine's alone, one worker,
    without telemetry and job runners. It answers after 6 to 30 seconds.
    """
    workspace = workspace.resolve()
    if not (workspace / "mlflow.db").exists():
        raise InputError(f"{workspace} has no mlflow.db yet: run a study there, or bring one in with `marginlab sync`.")
    argv = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    argv += ["--backend-store-uri", default_uri(workspace), "--registry-store-uri", default_uri(workspace)]
    argv += ["--artifacts-destination", (workspace / "mlartifacts").as_uri()]
    return argv, {**os.environ, **ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class _Page:
    """One study as MLflow has it; makes its views and their URLs."""

    def __init__(self, store: Store, study: MlflowRun, port: int, saving: bool = True) -> None:
        self.store, self.study, self.saving = store, study, saving
        self.experiment = store.client.get_experiment(study.info.experiment_id)
        self.runs = list(
            search(
                store.client,
                study.info.experiment_id,
                f"tags.`{views.PARENT}` = '{study.info.run_id}' and tags.kind != 'study'",
            )
        )
        base = store.shown_uri if store.uri.startswith("http") else f"http://{HOST}:{port}"
        self.base = f"{base}/#/experiments/{study.info.experiment_id}/runs"

    def of(self, kind: str, dataset: str | None = None) -> list[MlflowRun]:
        return [
            r
            for r in self.runs
            if r.data.tags["kind"] == kind and (dataset is None or r.data.tags["dataset"] == dataset)
        ]

    def values(self, tag: str) -> list[str]:
        return sorted({r.data.tags[tag] for r in self.runs})

    def links(self) -> list[tuple[str, str]]:
        against = " against ".join(self.values("margin_policy"))
        datasets = self.values("dataset")
        found = []
        for dataset in datasets:
            kind = "confirmation" if self.of("confirmation", dataset) else "trial"
            found.append((f"{against} on {dataset}, {kind} runs", self.policies(kind, dataset)))
        for dataset in datasets:
            if url := self.axes(dataset):
                n = len(views.drawn(self.of("trial", dataset)))
                loaded = f"the best {views.PAGE} of {n} trials" if n > views.PAGE else f"all {n} trials"
                found.append((f"{loaded} on {dataset}, axis by axis", url))
        if (run := self.telling()) is not None:
            url = self.save("curves", views.curves(run))
            found.append((f"the curves of one run: {run.info.run_name}", url))
        for dataset in datasets:
            name = model_name(self.study.data.tags["study"], dataset)
            if self.store.client.search_registered_models(f"name = '{name}'"):
                root = self.base.partition("#")[0]
                found.append(
                    (f"the champion on {dataset}", f"{root}#/models/{quote(name)}?workflowType=machine_learning")
                )
        study = f"{self.base}/{self.study.info.run_id}"
        found.append(("the study: what was asked and answered, and all runs", f"{study}?workflowType=machine_learning"))
        if any(f.path == _REPORT for f in self.store.client.list_artifacts(self.study.info.run_id, "report")):
            found.append(("the report", f"{study}/artifacts/{_REPORT}?workflowType=machine_learning"))
        return found

    def policies(self, kind: str, dataset: str | None = None) -> str:
        """Runs of a kind by margin policy; on all datasets, by these too."""
        groups = {"margin_policy": self.values("margin_policy")}
        if dataset is None and len(self.values("dataset")) > 1:
            groups["dataset"] = self.values("dataset")
        tested = any(views.TEST in r.data.metrics for r in self.of(kind, dataset))
        where = views.chosen(self.study.info.run_id, kind, dataset)
        return self.save("-".join(filter(None, (kind, dataset))), views.policies(where, groups, tested))

    def axes(self, dataset: str) -> str | None:
        view = views.axes(views.chosen(self.study.info.run_id, "trial", dataset), self.of("trial", dataset))
        return self.save(f"axes-{dataset}", view) if view else None

    def telling(self) -> MlflowRun | None:
        """The run whose curves say most: the best complete trial of a policy that learns; without one, the best trial."""
        complete = [
            r for r in self.of("trial") if r.data.tags.get("state") == "complete" and views.BEST in r.data.metrics
        ]
        learning = [r for r in complete if r.data.tags["margin_policy"] not in _LEARNS_NOTHING]
        return max(learning or complete, key=lambda r: r.data.metrics[views.BEST], default=None)

    def save(self, name: str, view: dict[str, Any]) -> str:
        key, text = f"{_KEY}{name}-{self.study.data.tags['marginlab.projection']}", json.dumps(view)
        if self.saving and self.experiment.tags.get(_TAG + key) != text:
            self.store.client.set_experiment_tag(self.experiment.experiment_id, _TAG + key, text)
        return f"{self.base}?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={key}"


def model_name(study: str, dataset: str) -> str:
    """Of the registered model that is a dataset's champion."""
    return f"{study}-{dataset}".replace("/", "-")
