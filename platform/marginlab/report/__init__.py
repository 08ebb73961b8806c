"""A study's answer for people: on the terminal, as CSV, and as one page that needs no network."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from marginlab.report.content import Link
from marginlab.report.csv import write_csv
from marginlab.results import Results


def write_report(results: Results, out_folder: Path | str, link: Link | None = None) -> Path:
    """Write ``report.html``, ``headline.csv``, ``epochs.csv`` and ``runs.csv``; returns the page's path.

    Args:
        link: how to open the comparison in MLflow; without it the page names the command that prints the links.
    """
    # Matplotlib takes a second to import: only who draws a page pays for it.
    from marginlab.report.html import write_html

    out = Path(out_folder)
    write_csv(results, out)
    return write_html(results, out / "report.html", link)


def print_answer(console: Console, results: Results, link: Link | None = None) -> None:
    """The report on the caller's console."""
    from marginlab.report.terminal import render

    console.print(render(results, link))


__all__ = ["Link", "print_answer", "write_csv", "write_report"]
