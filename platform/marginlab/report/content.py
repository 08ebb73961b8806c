"""What a report says, gathered once: the terminal and the page render the same content in the same order."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl

from marginlab import bucket, cost, tables
from marginlab.compare import Answer, answers, exploratory
from marginlab.report.declared import declared
from marginlab.report.limits import limits
from marginlab.report.words import NOTHING, caution, measured, metric_name, number, percent_of, years
from marginlab.results import Results
from marginlab.retrieval import by_chance
from marginlab.scores import split_metric

DEFAULT = ", published default"


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
class Grid:
    """A table laid out as the paper's: a metric, horizons as columns, and sections of (title, rows of name and cells)."""

    metric: str
    columns: list[str]
    sections: list[tuple[str, list[tuple[str, list[str]]]]]


@dataclass(frozen=True)
class Content:
    results: Results
    answers: list[Answer]
    declared: list[str]
    headline: pl.DataFrame
    defaults: pl.DataFrame  # headline's, of the published defaults
    exploratory: pl.DataFrame
    spending: dict[str, list[str]]  # by dataset: what each arm took to get where the other got
    searches: pl.DataFrame
    spaces: pl.DataFrame
    beside: pl.DataFrame
    time: pl.DataFrame
    limits: list[str]
    missing: list[str]
    cautions: dict[str, str]  # by dataset, those that have one
    links: dict[str, str] = field(default_factory=dict)  # what a command or address shows -> itself

    @classmethod
    def of(cls, results: Results, link: Link | None = None) -> Content:
        found, searched = answers(results), tables.searches(results)
        return cls(
            results=results,
            answers=found,
            declared=declared(results),
            headline=tables.headline(results),
            defaults=tables.headline(results, "default"),
            exploratory=exploratory(results),
            spending=cost.sentences(results),
            searches=searched,
            spaces=tables.spaces(results.study),
            beside=tables.beside_published(results),
            time=tables.time_use(results),
            limits=limits(results, found, searched),
            missing=results.missing(),
            cautions={d.name: said for d in results.study.datasets if (said := caution(results, d.name))},
            links=_links(results, link),
        )

    @property
    def datasets(self) -> list[str]:
        return [d.name for d in self.results.study.datasets]

    @property
    def arms(self) -> list[str]:
        return [a.name for a in self.results.study.arms]

    def note(self, dataset: str | None = None) -> str:
        """What stands beside a title: that the dataset (or, without one, any) is synthetic or was simulated."""
        if dataset is not None:
            return self.cautions.get(dataset, "")
        alike = {text: [d for d, said in self.cautions.items() if said == text] for text in self.cautions.values()}
        return "; ".join(f"{', '.join(names)}: {text}" for text, names in alike.items())

    def metrics(self, dataset: str) -> list[str]:
        """Those shown: the named ones, and the primary whatever it is."""
        shown = [*tables.METRICS, split_metric(self.results.study.comparison.primary)[0]]
        here = self.headline.filter(pl.col("dataset") == dataset, pl.col("metric").is_in(shown))
        return here["metric"].unique(maintain_order=True).to_list()

    def grid(self, dataset: str) -> list[list[Row]]:
        """The headline table of a dataset: the arms at each horizon; arms without a figure yet have empty cells.

        Where published defaults were trained, each is a row of its own; one that won its search has the winner's row.
        """
        found, default = (
            {
                (r["horizon"], r["arm"], r["metric"]): r
                for r in f.filter(pl.col("dataset") == dataset).iter_rows(named=True)
            }
            for f in (self.headline, self.defaults)
        )
        horizons = self.headline.filter(pl.col("dataset") == dataset)["horizon"].unique(maintain_order=True)
        return [
            self._rows(dataset, h, found, "") + (self._rows(dataset, h, default, DEFAULT) if default else [])
            for h in horizons
        ]

    def _rows(self, dataset: str, horizon: int | None, found: dict[Any, Any], suffix: str) -> list[Row]:
        rows = []
        for arm in self.arms:
            cells = [found.get((horizon, arm, m)) for m in self.metrics(dataset)]
            if not suffix or any(cells):
                shown = [measured(c["mean"], c["se"]) if c else measured(None, None) for c in cells]
                rows.append(Row(horizon, arm + suffix, shown, max((c["n"] for c in cells if c), default=0)))
        return rows

    def contrasts(self, dataset: str) -> list[dict[str, Any]]:
        """The rows of ``compare.exploratory`` of a dataset: the primary metric, every horizon."""
        metric, _ = split_metric(self.results.study.comparison.primary)
        here = self.exploratory.filter(pl.col("dataset") == dataset, pl.col("metric") == metric)
        return list(here.iter_rows(named=True))

    def published(self, dataset: str) -> list[Grid]:
        """Per published metric the paper's rows and then this study's; empty where nothing was published."""
        frame = self.beside.filter(pl.col("dataset") == dataset)
        return [_grid(part) for part in frame.partition_by("metric", maintain_order=True)]

    def times(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """The rows of ``tables.time_use`` by part."""
        parts = self.time.partition_by("part", maintain_order=True)
        return [(p["part"][0], list(p.iter_rows(named=True))) for p in parts]

    def searched(self, dataset: str) -> list[dict[str, Any]]:
        """The rows of ``tables.searches`` of a dataset."""
        return list(self.searches.filter(pl.col("dataset") == dataset).iter_rows(named=True))

    def chance(self, dataset: str) -> str:
        """Where grades are to be found, what a random order would score, in a sentence."""
        if self.results.study.dataset(dataset).label != "grade":
            return ""
        runs = self.results.runs().filter(dataset=dataset, kind="confirmation", state="complete", current=True)
        for folder in runs["folder"]:
            path = self.results.folder / folder / "embeddings" / "test.parquet"
            if path.is_file():
                frame = pl.read_parquet(path, columns=["label", "role"])
                asked, gallery = (frame.filter(role=role)["label"].to_numpy() for role in ("query", "gallery"))
                found = {metric_name(f"test/{name}"): v for name, v in by_chance(asked, gallery).items()}
                shown = ", ".join(
                    f"{name} {number(v)}" for name, v in found.items() if name in self.metric_names(dataset)
                )
                return f"A random order of the gallery would have {shown}." if shown else ""
        return ""

    def metric_names(self, dataset: str) -> list[str]:
        return [metric_name(m) for m in self.metrics(dataset)]


def _grid(frame: pl.DataFrame) -> Grid:
    horizons = frame.filter(pl.col("source") == "published")["horizon"].unique(maintain_order=True).to_list()
    sections = []
    for source, title in (("published", "as published, 5 seeds"), ("here", "this study")):
        rows = []
        part = frame.filter(pl.col("source") == source)
        for (name, reading), cells in part.group_by("name", "reading", maintain_order=True):
            found = {r["horizon"]: r for r in cells.iter_rows(named=True)}
            shown = [percent_of(found[h]["mean"], found[h]["se"]) if h in found else NOTHING for h in horizons]
            rows.append((f"{name} ({reading})" if reading else str(name), shown))
        sections.append((title, rows))
    return Grid(frame["metric"][0], [years(h) for h in horizons], sections)


def _links(results: Results, link: Link | None) -> dict[str, str]:
    if link is None:  # the study lies at <workspace>/studies/<name>
        workspace = results.folder.resolve().parent.parent
        return {
            "start MLflow, which prints the links": f"marginlab ui --workspace {shlex.quote(bucket.shown(workspace))}"
        }
    start = {"start MLflow": link.command} if link.command else {}
    return {
        **start,
        "then open the comparison" if start else "open the comparison": link.url,
        "the search's trials": link.search_url,
    }
