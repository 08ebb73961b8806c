"""The tables for a paper: LaTeX with booktabs, one file per table, to be read with ``\\input``.

Each file is a whole ``table`` with caption and label. The preamble needs ``\\usepackage{booktabs}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from marginlab import tables
from marginlab.compare import LEVEL, Answer, answers
from marginlab.files import write_text
from marginlab.published import CAVEATS
from marginlab.report.words import caution, metric_name
from marginlab.results import Results

_SPECIAL = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\n": " ",
    "–": "--",
    "−": r"\textminus{}",
    "±": r"\(\pm\)",
    "×": r"\(\times\)",
    "“": "``",
    "”": "''",
}
Section = tuple[str, Sequence[Sequence[str]]]  # a title ("" for none) and rows of cells, which are LaTeX already


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def write_latex(results: Results, out_folder: Path) -> list[Path]:
    """``answer.tex``, then per dataset ``<dataset>-<metric>.tex`` (arms by horizons), and ``searches.tex``."""
    made = {"answer": _answers(results, answers(results)), "searches": _searches(results)}
    layout, theirs = tables.headline(results), tables.beside_published(results)
    for dataset in [d.name for d in results.study.datasets]:
        for metric in tables.METRICS:
            ours = layout.filter(pl.col("dataset") == dataset, pl.col("metric") == metric)
            if len(ours):
                made[f"{dataset}-{metric.removeprefix('test/')}"] = _by_horizon(results, dataset, metric, ours)
        for metric in theirs.filter(pl.col("dataset") == dataset)["metric"].unique(maintain_order=True):
            both = theirs.filter(pl.col("dataset") == dataset, pl.col("metric") == metric)
            made[f"{dataset}-published-{_slug(metric)}"] = _published(results, dataset, metric, both)
    paths = []
    for name, text in made.items():
        if text:
            paths.append(out_folder / f"{name}.tex")
            write_text(paths[-1], text)
    return paths


def table(
    columns: Sequence[str], sections: Sequence[Section], caption: str, label: str, notes: Sequence[str] = ()
) -> str:
    """A floating table. ``columns`` and cells are LaTeX; the first column is set left, the others right."""
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}", rf"\label{{tab:{label}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", r"\toprule", " & ".join(columns) + r" \\"]
    for title, rows in sections:
        lines.append(r"\midrule")
        if title:
            lines.append(rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{escape(title)}}}}} \\")
        lines += [" & ".join(row) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {escape(n)}" for n in notes]
    return "\n".join([*lines, r"\end{table}", ""])


def measured(mean: float | None, se: float | None, digits: int = 3) -> str:
    """Mean and standard error in math mode; a dash where there is nothing."""
    if mean is None:
        return "--"
    return rf"\({mean:.{digits}f}\)" if se is None else rf"\({mean:.{digits}f} \pm {se:.{digits}f}\)"


def _notes(results: Results, dataset: str | None = None) -> list[str]:
    alike: dict[str, list[str]] = {}
    for d in results.study.datasets:
        if dataset in (None, d.name) and (said := caution(results, d.name)):
            alike.setdefault(said, []).append(d.name)
    return [f"{', '.join(names)}: {said}." for said, names in alike.items()]


def _answers(results: Results, found: Sequence[Answer]) -> str:
    if not found:
        return ""
    rows = []
    for a in found:
        d = a.difference
        interval = "--" if d.low is None or d.high is None else rf"\([{d.low:+.4f}, {d.high:+.4f}]\)"
        mean = "--" if d.mean is None else rf"\({d.mean:+.4f}\)"
        rows.append([escape(a.dataset), mean, interval, str(d.n), a.verdict])
    a = found[0]
    caption = (
        f"{a.first} minus {a.second}: difference in test {metric_name(a.metric)}"
        f"{'' if a.horizon is None else f' at {a.horizon} months'}, {100 * LEVEL:.0f}% interval, and the answer; "
        f"differences down to -{a.margin:g} were declared to make none."
    )
    columns = ["dataset", "difference", f"{100 * LEVEL:.0f}\\% interval", "seeds", "answer"]
    return table(columns, [("", rows)], caption, f"{results.study.name}-answer", _notes(results))


def _by_horizon(results: Results, dataset: str, metric: str, frame: pl.DataFrame) -> str:
    horizons = frame["horizon"].unique(maintain_order=True).to_list()
    found = {(r["arm"], r["horizon"]): r for r in frame.iter_rows(named=True)}
    rows = []
    for arm in frame["arm"].unique(maintain_order=True):
        cells = [found.get((arm, h)) for h in horizons]
        rows.append([escape(arm), *(measured(c["mean"], c["se"]) if c else "--" for c in cells)])
    columns = ["arm", *("all" if h is None else f"{h} months" for h in horizons)]
    caption = f"{dataset}: test {metric_name(metric)} by months between gallery and query image, mean and standard error over seeds."
    return table(
        columns, [("", rows)], caption, f"{results.study.name}-{dataset}-{_slug(metric)}", _notes(results, dataset)
    )


def _published(results: Results, dataset: str, metric: str, frame: pl.DataFrame) -> str:
    horizons = frame.filter(pl.col("source") == "published")["horizon"].unique(maintain_order=True).to_list()
    sections = []
    for source, title in (("published", "as published, 5 seeds"), ("here", f"this study, {results.study.name}")):
        part = frame.filter(pl.col("source") == source)
        rows = []
        for (name, reading), cells in part.group_by("name", "reading", maintain_order=True):
            found = {r["horizon"]: r for r in cells.iter_rows(named=True)}
            shown = [measured(found[h]["mean"], found[h]["se"], 1) if h in found else "--" for h in horizons]
            rows.append([escape(f"{name} ({reading})" if reading else str(name)), *shown])
        sections.append((title, rows))
    columns = ["loss", *("all" if h is None else f"{h // 12}y" for h in horizons)]
    label = f"{results.study.name}-{dataset}-published-{_slug(metric)}"
    caption = f"{dataset}: {metric} in percent, mean and standard error over seeds."
    return table(columns, sections, caption, label, [*_notes(results, dataset), *CAVEATS])


def _searches(results: Results) -> str:
    frame, room = tables.searches(results), {r["arm"]: r for r in tables.spaces(results.study).iter_rows(named=True)}
    sections = []
    for part in frame.partition_by("dataset", maintain_order=True):
        rows = [
            [
                escape(r["arm"]),
                str(room[r["arm"]]["dimensions"]),
                "--" if r["trials"] is None else str(r["trials"]),
                "--" if r["epochs"] is None else f"{r['epochs']}/{r['budget']}",
                measured(r["best"], None),
                measured(r["confirmed"], None),
                escape(r["params"] or "none yet"),
            ]
            for r in part.iter_rows(named=True)
        ]
        sections.append((part["dataset"][0], rows))
    columns = ["arm", "dimensions", "trials", "epochs", "best", "confirmed", "winner"]
    caption = "Searches: the best validation figure of each and what its configuration reached on fresh seeds."
    return table(columns, sections, caption, f"{results.study.name}-searches", _notes(results))


def _slug(metric: str) -> str:
    kept = "".join(c if c.isalnum() else "-" for c in metric.removeprefix("test/").lower())
    return kept.strip("-")
