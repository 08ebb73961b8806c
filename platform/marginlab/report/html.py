"""The report as one HTML page: nothing is loaded from anywhere, no scripts; readable in light, dark, and on a phone."""

from __future__ import annotations

import itertools
from pathlib import Path

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from marginlab import __version__, tables
from marginlab.files import write_text
from marginlab.published import CAVEATS
from marginlab.report import cost_figure, figures, words
from marginlab.report.certainty import certainty
from marginlab.report.content import Content, Link
from marginlab.report.pictures import STYLE, Picture
from marginlab.report.pictures import drawings as pictures
from marginlab.results import Results

MARGINS = {"margin/epsilon": "epsilon (gap in similarity)", "margin/beta": "beta (bound on similarity)"}


def write_html(results: Results, path: Path, link: Link | None = None, galleries: bool = False) -> Path:
    write_text(path, page(results, link, galleries))
    return path


def page(results: Results, link: Link | None = None, galleries: bool = False) -> str:
    """``galleries``: show images of people too, where the packed dataset is at hand; those of phantoms always are."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = Content.of(results, link)
    arms = list(enumerate(content.arms))
    return environment.get_template("page.html").render(
        c=content,
        w=words,
        version=__version__,
        caveats=CAVEATS,
        legend=[(a, figures.arm_colour(i), figures.dash(i), figures.glyph(i)) for i, a in arms],
        style=Markup(STYLE),
        drawings=drawings(content),
        pictures=pictures(results, galleries=galleries),
        costs=cost_figure.drawings(results),
        certainty=certainty,
    )


def drawings(content: Content) -> dict[str, list[Picture]]:
    """The figures of each dataset; one without anything to show is left out."""
    runs, means = tables.single_curves(content.results), tables.learning_curves(content.results)
    out, number = {}, itertools.count()
    for dataset in content.datasets:
        single, mean = (f.filter(pl.col("dataset") == dataset) for f in (runs, means))
        made = [_validation(content, single, mean), _margins(content, single, mean), _horizons(content, dataset)]
        out[dataset] = [d for d in made if d.panels]
        for d in made:
            d.panels = [(title, Markup(figures.with_ids(svg, f"f{next(number)}-"))) for title, svg in d.panels]
    return out


def _validation(content: Content, single: pl.DataFrame, mean: pl.DataFrame) -> Picture:
    single, mean = (f.filter(pl.col("metric") == "val/map") for f in (single, mean))
    drawing = Picture(
        "Validation mAP over epochs",
        "Thick: mean of the confirmation runs. Thin: each of them. Faint: search trials, which end early where they were pruned. "
        "Grey: the means of the other arms.",
        legend=False,
    )
    most = max((len(g) for g in single.filter(pl.col("kind") == "trial").unique("id").partition_by("arm")), default=0)
    if most > figures.MOST_TRIALS:
        drawing.caption += f" At most {figures.MOST_TRIALS} trials per arm are drawn."
    axis = figures.limits(single["value"])
    for arm in content.arms:
        if len(single.filter(pl.col("arm") == arm)):
            svg = figures.validation_panel(single, mean, content.arms, arm, axis)
            drawing.panels.append((arm, Markup(svg)))
    return drawing


def _margins(content: Content, single: pl.DataFrame, mean: pl.DataFrame) -> Picture:
    drawing = Picture("Margins over epochs", "Thick: mean of the confirmation runs. Thin: each of them.")
    for metric, label in MARGINS.items():
        runs, means = (f.filter(pl.col("metric") == metric) for f in (single, mean))
        if len(means):
            svg = figures.margin_panel(runs, means, content.arms, label)
            drawing.panels.append(("", Markup(svg)))
    return drawing


def _horizons(content: Content, dataset: str) -> Picture:
    metric = "test/map"
    frame = content.headline.filter(pl.col("dataset") == dataset, pl.col("metric") == metric)
    drawing = Picture(
        "Test mAP by horizon", "Mean over seeds; bars are one standard error. “all”: queries of every horizon."
    )
    if len(frame):
        svg = figures.horizon_panel(frame, content.arms, f"test {words.metric_name(metric)}")
        drawing.panels.append(("", Markup(svg)))
    return drawing
