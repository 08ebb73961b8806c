"""The nearest images of a gallery to each query, and how often other people's images are as alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from marginlab.files import aside
from marginlab.matching.embed import Embedded, Progress, embed, read
from marginlab.matching.images import listed
from marginlab.matching.impostors import Rates
from marginlab.matching.model import Embedder
from marginlab.retrieval.embeddings import full_precision
from marginlab.values import InputError

MATCHES: dict[str, type[pl.DataType]] = {
    "query": pl.String,  # files as the user gave them
    "rank": pl.Int64,  # 1 is the nearest
    "match": pl.String,
    "similarity": pl.Float64,  # cosine, larger is closer
    "false_match_rate": pl.Float64,  # of impostor pairs, the share that is at least as similar; null: not known
    "false_match_below": pl.Boolean,  # none of them is: the rate is below the number
    "false_match_upper": pl.Float64,  # 95% upper bound, had other people been drawn (impostors.Tail.upper)
    "false_non_match_rate": pl.Float64,  # of genuine pairs, the share that is at most as similar
    "rates_from": pl.String,  # the images that the rates were counted on
}
FORMATS = (".parquet", ".csv")
BLOCK = 256  # queries compared at a time


def side(model: Embedder, given: str, flip: bool = False, progress: Progress | None = None) -> tuple[Embedded, int]:
    """A query's or gallery's images, embedded, or the file that ``embed`` wrote; and how many of unknown side there were."""
    if Path(given).suffix.lower() == ".parquet":
        return read(Path(given), model), 0
    pictures = listed(given, model.config, flip)
    return embed(model, pictures, progress), pictures.unsided


def match(model: Embedder, query: Embedded, gallery: Embedded, top: int = 5) -> pl.DataFrame:
    """The ``top`` most similar gallery images of each query (:data:`MATCHES`), equal ones in the gallery's order.

    A file that is in both is no match of itself.
    """
    if top < 1:
        raise InputError(f"--top must be at least 1, not {top}.")
    rows, cols, sim = nearest(query, gallery, top)
    columns: dict[str, Any] = {
        "query": query.frame["file"].gather(rows),
        "rank": np.arange(len(rows)) - np.searchsorted(rows, rows) + 1,
        "match": gallery.frame["file"].gather(cols),
        "similarity": sim,
        "rates_from": [counted_on(model)] * len(rows),
    }
    unknown = {name: [None] * len(rows) for name in MATCHES}
    columns = unknown | columns | ({} if model.rates is None else rates(model.rates, sim))
    frame = pl.DataFrame({name: pl.Series(columns[name], dtype=t) for name, t in MATCHES.items()})
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def rates(known: Rates, sim: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of ``MATCHES`` that say how alike strangers are."""
    share, below = known.impostor.share(sim)
    return {
        "false_match_rate": share,
        "false_match_below": below,
        "false_match_upper": known.impostor.upper(share, below),
        "false_non_match_rate": known.genuine.share(sim)[0],
    }


def counted_on(model: Embedder) -> str | None:
    """A few words on where the rates come from; phantoms are called by their name."""
    known = model.rates
    if known is None:
        return None
    of = (
        f"PHANTOMS ({model.phantom}), not patients"
        if model.phantom
        else f"validation images of {model.config['dataset']}"
    )
    return f"{of}: {known.impostor.pairs} pairs of {known.impostor.subjects} subjects"


def nearest(query: Embedded, gallery: Embedded, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row of the query, row of the gallery and similarity of each match; by query, then by rank."""
    q, g = (torch.from_numpy(np.array(side.embeddings)) for side in (query, gallery))
    place: dict[str, list[int]] = {}
    for col, path in enumerate(gallery.path):
        place.setdefault(path, []).append(col)
    found = []
    with full_precision(q.device):
        for start in range(0, len(q), BLOCK):
            sim = (q[start : start + BLOCK] @ g.T).clamp_(-1, 1)
            for row in range(len(sim)):
                for col in place.get(query.path[start + row], ()):
                    sim[row, col] = -torch.inf
            least = sim.topk(min(top, len(g)), dim=1).values[:, -1:]
            near = (sim >= least) & (sim > -torch.inf)  # more than top where the last are equal
            for row, values in enumerate(sim.numpy()):
                cols = np.flatnonzero(near[row].numpy())
                cols = cols[np.argsort(-values[cols], kind="stable")][:top]
                found.append((np.full(len(cols), start + row), cols, values[cols].astype(np.float64)))
    rows, columns, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    return rows, columns, similarity


def check(out: Path) -> None:
    """Before anything is embedded."""
    if out.suffix.lower() not in FORMATS:
        raise InputError(f"{out}: matches are written as {' or '.join(FORMATS)}; end the name with one of them.")


def write(matches: pl.DataFrame, out: Path) -> None:
    """As CSV or Parquet, by the ending; whole or not at all."""
    check(out)
    with aside(out) as temporary:
        if out.suffix.lower() == ".csv":
            matches.write_csv(temporary)
        else:
            matches.write_parquet(temporary)


def shown_rate(rate: float | None, below: bool) -> str:
    """``< 1.2e-05`` where none of the impostor pairs was so similar."""
    if rate is None:
        return "unknown"
    return f"< {rate:.2g}" if below else f"{rate:.2g}"
