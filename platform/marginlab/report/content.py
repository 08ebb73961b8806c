"""What a report says, gathered once: the terminal and the page render the same content in the same order."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl

from marginlab import tables
from marginlab.compare import Answer, answers
from marginlab.report.limits import limits
from marginlab.report.words import PHANTOM, measured, metric_name
from marginlab.results import Results


class Link(Protocol):
    """How to see the comparison in MLflow: a ``tracking.links.Link``."""

    @property
    def command(self) -> str | None: ...
    @property
    def url(self) -> str: ...
    @property
    def search_url(self) -> str: ...


@dataclass(frozen=True)
class Row:
    """A line of the headline table: an arm at a horizon (months, None = all queries), a cell per metric."""

    horizon: int | None
    arm: str
    cells: list[str]
    seeds: int


@dataclass(frozen=True)
class Content:
    results: Results
    answers: list[Answer]
    headline: pl.DataFrame
    searches: pl.DataFrame
    time: pl.DataFrame
    limits: list[str]
    missing: list[str]
    phantoms: tuple[str, ...]
    links: dict[str, str] = field(default_factory=dict)  # what a command or address shows -> itself

    @classmethod
    def of(cls, results: Results, link: Link | None = None) -> Content:
        found, searched = answers(results), tables.searches(results)
        return cls(
            results=results,
            answers=found,
            headline=tables.headline(results),
            searches=searched,
            time=tables.time_use(results),
            limits=limits(results, found, searched),
            missing=results.missing(),
            phantoms=tuple(d.name for d in results.study.datasets if results.phantom(d.name)),
            links=_links(results, link),
        )

    @property
    def datasets(self) -> list[str]:
        return [d.name for d in self.results.study.datasets]

    @property
    def arms(self) -> list[str]:
        return [a.name for a in self.results.study.arms]

    def note(self, dataset: str | None = None) -> str:
        """What stands beside a title: the phantom label, where the dataset (or, without one, any) is synthetic."""
        if dataset is not None:
            return PHANTOM if dataset in self.phantoms else ""
        return f"{', '.join(self.phantoms)}: {PHANTOM}" if self.phantoms else ""

    def metrics(self, dataset: str) -> list[str]:
        return self.headline.filter(pl.col("dataset") == dataset)["metric"].unique(maintain_order=True).to_list()

    def grid(self, dataset: str) -> list[list[Row]]:
        """The headline table of a dataset: the arms at each horizon; arms without a figure yet have empty cells."""
        frame = self.headline.filter(pl.col("dataset") == dataset)
        found = {(r["horizon"], r["arm"], r["metric"]): r for r in frame.iter_rows(named=True)}
        sections = []
        for horizon in frame["horizon"].unique(maintain_order=True):
            rows = []
            for arm in self.arms:
                cells = [found.get((horizon, arm, m)) for m in self.metrics(dataset)]
                shown = [measured(c["mean"], c["se"]) if c else measured(None, None) for c in cells]
                rows.append(Row(horizon, arm, shown, max((c["n"] for c in cells if c), default=0)))
            sections.append(rows)
        return sections

    def times(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """The rows of ``tables.time_use`` by part."""
        parts = self.time.partition_by("part", maintain_order=True)
        return [(p["part"][0], list(p.iter_rows(named=True))) for p in parts]

    def searched(self, dataset: str) -> list[dict[str, Any]]:
        """The rows of ``tables.searches`` of a dataset."""
        return list(self.searches.filter(pl.col("dataset") == dataset).iter_rows(named=True))

    def metric_names(self, dataset: str) -> list[str]:
        return [metric_name(m) for m in self.metrics(dataset)]


def _links(results: Results, link: Link | None) -> dict[str, str]:
    if link is None:  # the study lies at <workspace>/studies/<name>
        workspace = results.folder.resolve().parent.parent
        return {"start MLflow, which prints the links": f"marginlab ui --workspace {shlex.quote(str(workspace))}"}
    start = {"start MLflow": link.command} if link.command else {}
    return {
        **start,
        "then open the comparison" if start else "open the comparison": link.url,
        "the search's trials": link.search_url,
    }
