"""Looking at it: the server for the workspace's database, and a link that opens the comparison as charts.

The view behind the link is one of MLflow's shared views: a tag of the experiment, in a format that MLflow does not
document (observed with 3.17). Should it change, the link still opens the study's runs, ungrouped.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginlab.tracking.projector import PARENT, Tracker
from marginlab.tracking.store import ENVIRONMENT, connect, default_uri
from marginlab.values import InputError

HOST, PORT = "127.0.0.1", 5000
BAR = "best/val_map"
_TAG, _KEY = "mlflow.sharedViewState.", "marginlab-"
LINES = ("val/map", "margin/epsilon", "margin/beta")  # over epochs

_SECTION = "margin-policies"
_STANDING = {"deleted": False, "isGenerated": False}


@dataclass(frozen=True)
class Link:
    """How to see a study's comparison in the browser."""

    command: str | None  # starts the server; None where one is running elsewhere
    url: str  # the confirmation runs; the trials while there are none
    search_url: str  # the trials


def comparison(tracker: Tracker, port: int = PORT) -> Link:
    """Save the study's comparison views and return the links to them. Raises TrackingAway where MLflow does not answer."""
    urls = {}
    with tracker.opened() as store:
        remote = store.uri.startswith("http")
        for kind in ("trial", "confirmation"):
            key = f"{_KEY}{kind}-{tracker.id}"
            view = json.dumps(_view(tracker, kind))
            store.client.set_experiment_tag(tracker.experiment, f"{_TAG}{key}", view)
            urls[kind] = _url(tracker.experiment, key, port, store.shown_uri if remote else None)
        confirmed = any("/confirmation-" in folder for folder in tracker.folders())
    command = None if remote else f"marginlab ui --workspace {shlex.quote(str(tracker.workspace))}"
    return Link(command, urls["confirmation" if confirmed else "trial"], urls["trial"])


def known(workspace: Path, port: int = PORT) -> list[tuple[str, str]]:
    """The comparison views that are saved in the workspace's database, as (study and kind of run, URL)."""
    if not (workspace / "mlflow.db").exists():
        return []
    found = []
    for experiment in connect(workspace).client.search_experiments(order_by=["name ASC"]):
        for tag in sorted(experiment.tags):
            if tag.startswith(_TAG + _KEY):
                kind = tag.removeprefix(_TAG + _KEY).partition("-")[0]
                found.append(
                    (f"{experiment.name}, {kind} runs", _url(experiment.experiment_id, tag.removeprefix(_TAG), port))
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


def _url(experiment: str, key: str, port: int, base: str | None = None) -> str:
    query = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={key}"
    return f"{base or f'http://{HOST}:{port}'}/#/experiments/{experiment}/runs?{query}"


def _view(tracker: Tracker, kind: str) -> dict[str, Any]:
    """Runs of a kind grouped by margin policy (and dataset, if there are several): a line chart per metric, of the means
    of the groups, and bars of the best mAP."""
    best = f"metrics.`{BAR}`"
    policies = {a["training"]["margin"]["type"].rpartition(":")[2] for a in tracker.declared["arms"]}
    keys = ["margin_policy"] + ["dataset"] * (len(tracker.declared["datasets"]) > 1)
    return {
        "searchFilter": f"tags.`{PARENT}` = '{tracker.parent}' and tags.kind = '{kind}'",
        "orderByKey": best,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "selectedColumns": ["tags.`arm`", "tags.`margin_policy`", "tags.`dataset`", "tags.`state`", best],
        "runsHiddenMode": "SHOWALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupsExpanded": {f"tag.margin_policy.{p}": False for p in sorted(policies)},
        "autoRefreshEnabled": False,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": k} for k in keys]},
        "compareRunCharts": [*(_line(m) for m in LINES), _chart("BAR", BAR)],
        "compareRunSections": [
            {**_STANDING, "uuid": _SECTION, "name": "Margin policies", "display": True, "isReordered": False}
            | {"columns": 2, "cardHeight": 360}
        ],
    }


def _line(metric: str) -> dict[str, Any]:
    return {
        **_chart("LINE", metric),
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "selectedXAxisMetricKey": "",
        "selectedYAxisMetricKey": metric,
        "range": {},
        "yAxisKey": "metric",
        "yAxisExpressions": [],
    }


def _chart(kind: str, metric: str) -> dict[str, Any]:
    uuid = f"{kind}-{metric}".lower()
    return {
        **_STANDING,
        "uuid": uuid,
        "type": kind,
        "runsCountToCompare": 50,
        "metricSectionId": _SECTION,
        "metricKey": metric,
    }
