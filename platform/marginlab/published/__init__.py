"""The published tables, and this study's figures laid out the same way: rows of losses, columns of horizons.

Source: Nguyen, Nguyen, Tiulpin: AdaTriplet (MICCAI 2022, arXiv 2205.02849), Tables 4 (OAI) and 5 (ChestX-ray14), in
percent, mean and standard error over 5 seeds; read from the pictures in the authors' repository. One cell of Table 4 is
misprinted there (Contrastive, CMC, 2 years: "97±0.1.0") and is taken as 97.0 ± 0.1.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from marginlab.data.cxr14 import CXR14
from marginlab.data.oai import OAI
from marginlab.results import Results
from marginlab.study import Dataset

# Ours beside theirs. The published CMC has two possible meanings (CAVEATS): both stand beside it.
METRICS: dict[str, dict[str, str | None]] = {
    "mAP": {"test/map": None},
    "mAP@R": {"test/map_at_r": None},
    "CMC top 1": {"test/cmc_1": "first answer", "test/cmc_allshots_1": "allshots"},
}
CAVEATS = (
    "The published figures are on the full data sets.",
    "Published mAP@R is of the five fold models' averaged embeddings, whose spaces are not aligned: a correct mAP@R, as "
    "measured here, should be higher and is not comparable.",
    "Published “CMC top 1”: the released code counts every match before the first wrong answer (here CMC-1 allshots), but "
    "then mAP@R could never be lower, and in 136 of 140 published cells it is: either reading is possible, so both "
    "stand beside it.",
    "Baselines' hyperparameters are not published. In the released code SCT mines the reverse of what its paper says, and the "
    "proxies of ArcFace and SoftTriple are never trained: if the tables come from that code, these rows are too low.",
    "Whether the rows “AdaTriplet” use AutoMargin, and with which K, is not said.",
    "The published networks began with ImageNet weights and trained for 100 epochs.",
)
SCHEMA = {
    "dataset": pl.String,
    "metric": pl.String,  # the published name
    "reading": pl.String,  # which of a name's two meanings; null where it has one, or where it is the published figure
    "source": pl.String,  # "published" or "here"
    "name": pl.String,  # a loss of the paper, or an arm
    "horizon": pl.Int64,  # months; null for all queries
    "mean": pl.Float64,  # percent
    "se": pl.Float64,  # percent; null for one seed
    "n": pl.Int64,  # seeds
}
_FOLDER = Path(__file__).parent
_FILES = {OAI: "oai.csv", CXR14: "cxr14.csv"}
_SEEDS = 5


def published(dataset: Dataset) -> pl.DataFrame | None:
    """The paper's table for a dataset: metric, name, horizon, mean, se; None where the paper has none.

    A dataset is known by its reader, or by its name where it names none.
    """
    name = _FILES.get(type(dataset.reader)) if dataset.reader is not None else f"{dataset.name}.csv"
    if name is None or not (_FOLDER / name).exists():
        return None
    years = pl.col("horizon").str.strip_suffix("y")
    return pl.read_csv(_FOLDER / name).select(
        "metric",
        name="loss",
        horizon=pl.when(years != "all").then(years).cast(pl.Int64) * 12,
        mean=pl.col("mean").cast(pl.Float64),
        se=pl.col("se").cast(pl.Float64),
    )


def beside(results: Results, headline: pl.DataFrame) -> pl.DataFrame:
    """Published rows, then this study's, per dataset and metric (:data:`SCHEMA`). Empty where nothing was published.

    Args:
        headline: ``tables.headline`` of the study.
    """
    frames = [pl.DataFrame(schema=SCHEMA)]
    for dataset in results.study.datasets:
        theirs = published(dataset)
        ours = headline.filter(pl.col("dataset") == dataset.name)
        if theirs is None or not len(ours):
            continue
        for metric, readings in METRICS.items():
            rows = theirs.filter(pl.col("metric") == metric)
            frames.append(_rows(rows.with_columns(n=pl.lit(_SEEDS)), dataset.name, metric, "published", None))
            horizons = rows["horizon"].unique().to_list()
            for name, reading in readings.items():
                mine = ours.filter(pl.col("metric") == name, pl.col("horizon").is_in(horizons, nulls_equal=True))
                percent = mine.with_columns(pl.col("mean", "se") * 100, name="arm")
                frames.append(_rows(percent, dataset.name, metric, "here", reading))
    return pl.concat(frames)


def _rows(frame: pl.DataFrame, dataset: str, metric: str, source: str, reading: str | None) -> pl.DataFrame:
    known = {"dataset": dataset, "metric": metric, "source": source, "reading": reading}
    columns = [pl.lit(known[c]) if c in known else pl.col(c) for c in SCHEMA]
    return frame.select(e.cast(t).alias(c) for e, (c, t) in zip(columns, SCHEMA.items(), strict=True))
