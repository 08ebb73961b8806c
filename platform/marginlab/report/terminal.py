"""The report on a terminal: rich renderables, made for 100 columns. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from marginlab.report.content import Content, Link
from marginlab.report.words import (
    SEARCHES,
    answer_sentence,
    confirmed,
    horizon_name,
    number,
    percent,
    search_name,
    seconds,
)
from marginlab.results import Results

COLOURS = {"better": "green", "matches": "green", "worse": "red", "undecided": "yellow"}


def render(results: Results, link: Link | None = None) -> Group:
    """The whole report, in the page's order but for the curves."""
    content = Content.of(results, link)
    return Group(*_parts(content))


def _parts(c: Content) -> Iterator[RenderableType]:
    study = c.results.study
    yield Text(study.question or f"Study {study.name}", style="bold")
    if c.cautions:
        yield Text(c.note(), style="bold yellow")
    yield Text()
    for a in c.answers:
        yield Text.assemble((f"{a.dataset}: ", "bold"), (answer_sentence(a), COLOURS[a.verdict]), _note(c, a.dataset))
        for sentence in c.spending.get(a.dataset, [])[:1]:
            yield Text("  " + sentence, style="dim")
    for sentence in c.declared:
        yield Text(sentence, style="dim")
    for dataset in c.datasets:
        yield Text()
        yield headline_table(c, dataset)
        if chance := c.chance(dataset):
            yield Text(chance, style="dim")
    yield Text()
    yield searches_table(c)
    if len(c.time):
        yield Text()
        yield time_table(c)
    for title, sentences in (("What is missing", c.missing), ("What this study cannot decide", c.limits)):
        if sentences:
            yield Text()
            yield Text(title, style="bold")
            yield bullets(sentences)
    if c.links:
        yield Text()
        yield Text("Open it in MLflow", style="bold")
        for what, target in c.links.items():
            address = Style(color="cyan", link=target if target.startswith("http") else None)
            yield Text.assemble(f"  {what}:\n  ", (target, address), overflow="fold")


def headline_table(c: Content, dataset: str) -> Table:
    """Arms by metrics, one section per horizon."""
    table = _table(f"{dataset}: test figures, mean ± standard error over seeds", c.note(dataset))
    table.add_column("months")
    table.add_column("arm", overflow="fold")
    for name in c.metric_names(dataset):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("seeds", justify="right")
    for rows in c.grid(dataset):
        table.add_section()
        for row in rows:
            label = horizon_name(row.horizon) if row is rows[0] else ""
            table.add_row(label, Text(row.arm), *row.cells, str(row.seeds))
    if not c.grid(dataset):
        table.add_row("", "no seed has been confirmed yet")
    return table


def searches_table(c: Content) -> Table:
    table = _table("Searches", c.note())
    table.add_column("arm", overflow="fold")
    for name in ("trials", "model", "pruned", "failed", "epochs", "best", "confirmed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("winner", overflow="fold")
    for dataset in c.datasets:
        table.add_section()
        table.add_row(Text(dataset, style="bold"))
        for r in c.searched(dataset):
            table.add_row(
                Text(search_name(r, c.results.study.search.replicates)),
                *(number(r[name], 0) for name in ("trials", "modelled", "pruned", "failed")),
                f"{number(r['epochs'], 0)}/{r['budget']}",
                number(r["best"]),
                confirmed(r),
                Text(r["params"] or "none yet"),
            )
    table.caption = SEARCHES
    return table


def time_table(c: Content) -> Table:
    table = _table("Where time went", c.note())
    table.add_column("")
    table.add_column("step", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("share", justify="right")
    for part, rows in c.times():
        table.add_section()
        for r in rows:
            table.add_row(part if r is rows[0] else "", Text(r["step"]), seconds(r["seconds"]), percent(r["share"]))
    return table


def _table(title: str, note: str) -> Table:
    heading = Text(title, style="bold")
    if note:
        heading.append(f"\n{note}", style="yellow")
    return Table(
        title=heading,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def _note(c: Content, dataset: str) -> tuple[str, str]:
    note = c.note(dataset)
    return (f" [{note}]" if note else "", "yellow")


def bullets(sentences: list[str]) -> Table:
    table = Table.grid(padding=(0, 1))
    for s in sentences:
        table.add_row("  -", Text(s))
    return table
