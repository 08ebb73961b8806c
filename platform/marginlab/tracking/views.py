"""The charts behind the links: which runs, grouped how, in which charts.

Each is one of MLflow's shared views: a tag of the experiment, in a format that MLflow does not document (observed with 3.17;
``make test-browser`` looks whether it still holds). Should it change, a link still opens the study's runs, as a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

PARENT = "mlflow.parentRunId"
BEST, TEST = "best/val_map", "test/map"
MARGINS = ("margin/epsilon", "margin/beta")
AXES = ("final/epsilon", "final/beta", BEST)  # where margins ended compares policies that share no parameter
CURVES = (
    ("val/map", "val/map_at_r", "val/cmc_1"),
    ("margin/epsilon", "margin/beta", "margin/beta_p"),
    ("train/sim_positive", "train/sim_negative"),
    ("train/loss",),
    ("train/active_triplet", "train/active_pair"),
    ("train/grad_norm",),
)
PAGE = 100  # runs that MLflow loads at once

_SECTION = "margin-policies"
_STANDING = {"deleted": False, "isGenerated": False}


def chosen(parent: str, kind: str, dataset: str | None = None) -> str:
    """The filter of a study's runs of a kind."""
    on = f" and tags.dataset = '{dataset}'" if dataset else ""
    return f"tags.`{PARENT}` = '{parent}' and tags.kind = '{kind}'{on}"


def policies(where: str, groups: Mapping[str, Iterable[str]], tested: bool) -> dict[str, Any]:
    """Runs grouped by tags: a line chart per metric, of the means of the groups, and bars of the best validation mAP.

    Args:
        where: the filter.
        groups: tag -> its values. The groups are shown folded, so that they and not their runs fill the list.
        tested: whether the runs have test figures: bars of them too.
    """
    folded = [""]
    for tag, values in groups.items():
        folded = [f"{f},tag.{tag}.{v}".lstrip(",") for f in folded for v in sorted(values)]
    first, last = ([TEST], [BEST]) if tested else ([BEST], [])
    charts = [_line("val/map"), *(_bars(m) for m in first), *(_line(m) for m in MARGINS), *(_bars(m) for m in last)]
    return {
        **_view(where, "Margin policies", charts),
        "groupsExpanded": dict.fromkeys(folded, False),
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": k} for k in groups]},
    }


def drawn(runs: list[MlflowRun]) -> list[MlflowRun]:
    """The runs that parallel coordinates can show: those that ended, and not by failing."""
    return [r for r in runs if BEST in r.data.metrics and r.data.tags.get("state") in ("complete", "pruned")]


def axes(where: str, runs: list[MlflowRun]) -> dict[str, Any] | None:
    """Parallel coordinates of ``runs``, those that can be shown, with the axes that all of them have and on which they differ;
    None with less than two.

    A run that lacks an axis, or has a word where most have a number, would be left out without a word. A margin's own
    parameters say other things under other policies (where one starts is where another stays): where margins ended stands
    for them.
    """
    ended = drawn(runs)
    mixed = len({r.data.tags["margin_policy"] for r in ended}) > 1
    params = sorted(set.intersection(*(set(r.data.params) for r in ended))) if ended else []
    params = [p for p in params if not (mixed and p.startswith("margin."))]
    varied = [p for p in params if _numbers(values := [r.data.params[p] for r in ended]) and len(set(values)) > 1]
    figures = {m: [r.data.metrics.get(m) for r in ended] for m in AXES}
    metrics = [m for m, v in figures.items() if None not in v and len(set(v)) > 1]
    if len(varied) + len(metrics) < 2 or not ended:
        return None
    chart = {**_chart("PARALLEL", BEST), "selectedParams": varied, "selectedMetrics": metrics, "showAllRuns": True}
    return _view(f"{where} and tags.state != 'failed'", "Every run, axis by axis", [chart], columns=1)


def curves(run: MlflowRun) -> dict[str, Any]:
    """One run's figures over epochs, those that belong together in one chart."""
    charts = [_line(*there) for keys in CURVES if (there := [k for k in keys if k in run.data.metrics])]
    return _view(f"attributes.run_id = '{run.info.run_id}'", str(run.info.run_name), charts, columns=3)


def _numbers(texts: Iterable[str]) -> bool:
    try:
        return bool([float(t) for t in texts])
    except ValueError:
        return False


def _view(where: str, title: str, charts: list[dict[str, Any]], columns: int = 2) -> dict[str, Any]:
    best = f"metrics.`{BEST}`"
    return {
        "searchFilter": where,
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
        "isAccordionReordered": True,  # our section first; MLflow adds charts of all other metrics below it
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupsExpanded": {},
        "autoRefreshEnabled": False,
        "groupBy": None,
        "compareRunCharts": charts,
        "compareRunSections": [
            {**_STANDING, "uuid": _SECTION, "name": title, "display": True, "isReordered": False}
            | {"columns": columns, "cardHeight": 360}
        ],
    }


def _bars(metric: str) -> dict[str, Any]:
    return _chart("BAR", metric)


def _line(*metrics: str) -> dict[str, Any]:
    return {
        **_chart("LINE", metrics[0]),
        "selectedMetricKeys": list(metrics),
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "selectedXAxisMetricKey": "",
        "selectedYAxisMetricKey": metrics[0],
        "range": {},
        "yAxisKey": "metric",
        "yAxisExpressions": [],
    }


def _chart(kind: str, metric: str) -> dict[str, Any]:
    return {
        **_STANDING,
        "uuid": f"{kind}-{metric}".lower(),
        "type": kind,
        "runsCountToCompare": PAGE,
        "metricSectionId": _SECTION,
        "metricKey": metric,
    }
