"""Pictures of retrieval and of the search, for a page or a notebook. Each is a function of frames, each frame one of results.

    gallery        the first match of each arm for a few queries     worst        the queries that went most wrong
    cmc            CMC curves                                        similarity   positive and negative pairs, and the margins
    embedding_map  two principal components of a few subjects        slices       the objective against each parameter
    importance     how much each searched parameter mattered

What cannot be drawn says so in a sentence, whatever a study has got to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import polars as pl
from markupsafe import Markup

from marginlab.report import figures
from marginlab.report.pictures import cmc, embedding_map, gallery, importance, similarity, slices, worst
from marginlab.report.pictures.confirmed import Confirmed
from marginlab.report.pictures.images import Images
from marginlab.report.pictures.picture import STYLE, Picture
from marginlab.report.pictures.searched import tried
from marginlab.results import Results
from marginlab.values import InputError

NOT_DRAWN = "Not drawn"


def drawings(results: Results, *, galleries: bool = False, workspace: Path | None = None) -> dict[str, list[Picture]]:
    """All pictures of a study by dataset, in the order of a page. The last says what could not be drawn, and why, if anything.

    Args:
        galleries: show images of people too; those of phantoms are always shown.
        workspace: where the packed datasets are, by default where the study is.
    """
    number, trials = itertools.count(), results.trials()
    out = {}
    for d in results.study.datasets:
        searched = tried(trials, results.study.arms, d.name)
        out[d.name] = _of(results, d.name, searched, galleries, workspace, number)
    return out


def _of(
    results: Results,
    dataset: str,
    searched: pl.DataFrame,
    galleries: bool,
    workspace: Path | None,
    number: itertools.count[int],
) -> list[Picture]:
    confirmed = Confirmed.of(results, dataset)

    def shown(picture: Callable[[Results, Confirmed, Images], Picture]) -> Picture:
        if not confirmed.seeds:
            raise InputError("No seed has test embeddings yet.")
        return picture(results, confirmed, Images.of(results, dataset, restricted=galleries, workspace=workspace))

    makers: list[tuple[str, Callable[[], Picture]]] = [
        (gallery.TITLE, lambda: shown(gallery.picture)),
        (worst.TITLE, lambda: shown(worst.picture)),
        (cmc.TITLE, lambda: cmc.picture(results, confirmed)),
        (embedding_map.TITLE, lambda: embedding_map.picture(results, confirmed)),
        (similarity.TITLE, lambda: similarity.picture(results, dataset)),
        (importance.TITLE, lambda: importance.picture(results, searched)),
        (slices.TITLE, lambda: slices.picture(results, searched)),
    ]
    made: list[Picture] = []
    lacking: dict[str, list[str]] = {}  # by sentence: what it keeps from being drawn
    for title, make in makers:
        try:
            picture = make()
        except (InputError, pl.exceptions.PolarsError) as e:  # the latter of a damaged file
            lacking.setdefault(str(e), []).append(title)
            continue
        # Drawings share a page: their ids must not. "p" is apart from the prefixes of the other figures.
        picture.panels = [(t, Markup(figures.with_ids(p, f"p{next(number)}-"))) for t, p in picture.panels]
        made.append(picture)
    if lacking:
        said = " ".join(f"{', '.join(titles)}: {sentence}" for sentence, titles in lacking.items())
        made.append(Picture(NOT_DRAWN, said, legend=False))
    return made


__all__ = ["STYLE", "Confirmed", "Images", "Picture", "drawings"]
