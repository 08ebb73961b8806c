"""Two studies side by side on a terminal: their answers, how they differ, and the figures of the arms and datasets they share."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginlab import tables
from marginlab.compare import answers
from marginlab.declaration import told_apart
from marginlab.report.terminal import COLOURS, bullets
from marginlab.report.words import answer_sentence, caution, horizon_name, measured, metric_name
from marginlab.results import Results
from marginlab.scores import split_metric

MOST_DIFFERENCES = 30  # lines; two studies of different kinds differ in everything


def render_two(first: Results, second: Results) -> Group:
    """For :class:`rich.console.Console`; made for 100 columns."""
    return Group(*_parts(first, second))


def _parts(first: Results, second: Results) -> Iterator[RenderableType]:
    names = _names(first, second)
    for name, results in zip(names, (first, second), strict=True):
        yield Text.assemble((name, "bold"), f"  {results.study.question}")
        for a in answers(results):
            note = f" [{said}]" if (said := caution(results, a.dataset)) else ""
            sentence = (answer_sentence(a), COLOURS[a.verdict])
            yield Text.assemble(("  " + a.dataset + ": ", "bold"), sentence, (note, "yellow"))
        yield Text()
    yield from _differences(first, second)
    frame = tables.side_by_side(first, second)
    primary = [split_metric(r.study.comparison.primary)[0] for r in (first, second)]
    shared = [d.name for d in first.study.datasets if d.name in {e.name for e in second.study.datasets}]
    for dataset in shared:
        # By horizon the primary metric alone: the other figures are in the studies' own reports.
        whole = pl.col("horizon").is_null() | pl.col("metric").is_in(primary)
        rows = frame.filter(pl.col("dataset") == dataset, whole)
        if len(rows):
            yield Text()
            yield _table(dataset, rows, names, caution(first, dataset) or caution(second, dataset))
    if not shared:
        yield Text("They have no dataset of the same name: nothing stands side by side.")


def _names(first: Results, second: Results) -> tuple[str, str]:
    a, b = first.study.name, second.study.name
    return (a, b) if a != b else (f"{a} ({first.folder.parent.parent})", f"{b} ({second.folder.parent.parent})")


def _differences(first: Results, second: Results) -> Iterator[RenderableType]:
    lines = told_apart(first.plan, second.plan)
    data = [d for d in first.plan.data if d in second.plan.data and first.plan.data[d] != second.plan.data[d]]
    if data:
        yield Text(
            f"{', '.join(data)}: other images or other splits. Their figures are not comparable.", style="bold red"
        )
    if not lines:
        yield Text("What both declare is the same; arms or datasets may be in one alone.")
        return
    yield Text("How they differ (first study, then second)", style="bold")
    more = len(lines) - MOST_DIFFERENCES
    yield bullets(lines[:MOST_DIFFERENCES] + ([f"and {more} more"] if more > 0 else []))


def _table(dataset: str, frame: pl.DataFrame, names: tuple[str, str], note: str) -> Table:
    title = Text(f"{dataset}: mean ± standard error over seeds", style="bold")
    if note:
        title.append(f"\n{note}", style="yellow")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("metric", "months", "arm"):
        table.add_column(name, overflow="fold")
    for name in (*names, "difference"):
        table.add_column(Text(name), justify="right", overflow="fold")
    for part in frame.filter(pl.col("metric").is_in(list(tables.METRICS))).partition_by("metric", maintain_order=True):
        table.add_section()
        for i, r in enumerate(part.iter_rows(named=True)):
            both = r["mean"] is not None and r["mean_second"] is not None
            table.add_row(
                metric_name(r["metric"]) if i == 0 else "",
                horizon_name(r["horizon"]),
                Text(r["arm"]),
                _cell(r["mean"], r["se"], r["n"]),
                _cell(r["mean_second"], r["se_second"], r["n_second"]),
                f"{r['mean'] - r['mean_second']:+.3f}".replace("-", "−") if both else "",
            )
    return table


def _cell(mean: float | None, se: float | None, n: int | None) -> str:
    return measured(mean, se) + (f" ({n})" if n else "")
