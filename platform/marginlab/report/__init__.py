"""A study's answer for people: on the terminal, as CSV, and as one page that needs no network."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from marginlab.report.content import Link
from marginlab.report.csv import write_csv
from marginlab.report.latex import write_latex
from marginlab.results import Results


def write_report(
    results: Results, out_folder: Path | str, link: Link | None = None, *, galleries: bool = False
) -> Path:
    """Write ``report.html``, its tables as ``tables/*.csv`` and as ``latex/*.tex``; returns the page's path.

    Args:
        link: how to open the comparison in MLflow; without it the page names the command that prints the links.
        galleries: show images of people on the page; those of phantoms are always shown.
    """
    # Matplotlib takes a second to import: only who draws a page pays for it.
    from marginlab.report.html import write_html

    out = Path(out_folder)
    write_csv(results, out / "tables")
    write_latex(results, out / "latex")
    return write_html(results, out / "report.html", link, galleries)


def print_answer(console: Console, results: Results, link: Link | None = None) -> None:
    """The report on the caller's console."""
    from marginlab.report.terminal import render

    console.print(render(results, link))


__all__ = ["Link", "print_answer", "write_report"]
