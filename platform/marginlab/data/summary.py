"""What a packed dataset holds, counted from its manifest: one frame per table or figure of its page. No identifiers."""

from __future__ import annotations

import polars as pl

from marginlab.data.splits import FOLDS

PARTS: dict[str, pl.Expr] = {
    "train": pl.col("split") == "train",
    **{f"fold {i}": (pl.col("fold") == i).fill_null(False) for i in range(FOLDS)},
    "test": pl.col("split") == "test",
    "all": pl.lit(True),
}
BINS = 14  # of a histogram, at most
HORIZONS = 24  # rows, at most; more are put together by years
WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
MONTHS = (1, 3, 6, 12, 24, 36, 60, 120, 240, 480, 1200)


def overview(manifest: pl.DataFrame) -> pl.DataFrame:
    """A row per part: images, subjects, labels, visits (subject and month; those of unknown month do not count), roles."""
    count = {role: (pl.col("role") == role).sum() for role in ("gallery", "query", "other")}
    known = pl.col("months").is_not_null()
    parts = [
        manifest.filter(condition).select(
            pl.lit(part).alias("part"),
            pl.len().alias("images"),
            pl.col("subject").n_unique().alias("subjects"),
            pl.col("label").n_unique().alias("labels"),
            pl.struct("subject", "months").filter(known).n_unique().alias("visits"),
            **count,
        )
        for part, condition in PARTS.items()
    ]
    return pl.concat(parts)


def by_value(manifest: pl.DataFrame, column: str) -> pl.DataFrame:
    """A row per value of the column (the unknown last), a column of images per part."""
    counts = [condition.cast(pl.Int64).sum().alias(part) for part, condition in PARTS.items() if part != "all"]
    return manifest.group_by(column).agg(*counts, all=pl.len()).sort(column, nulls_last=True)


def horizons(manifest: pl.DataFrame) -> pl.DataFrame:
    """Queries of the test split by months: name, queries, of how many subjects, and how many have a right answer to find.

    By whole months, or by years ("12–23") where there are more than ``HORIZONS`` of them.
    """
    test = manifest.filter(PARTS["test"])
    queries = test.filter(pl.col("role") == "query", pl.col("months").is_not_null())
    queries = queries.with_columns(pl.col("months").round().cast(pl.Int64))
    name = pl.col("months").cast(pl.String)
    if queries["months"].n_unique() > HORIZONS:
        queries = queries.with_columns(pl.col("months") // 12 * 12)
        name = pl.format("{}–{}", "months", pl.col("months") + 11)
    return (
        queries.group_by("months")
        .agg(
            queries=pl.len(),
            subjects=pl.col("subject").n_unique(),
            answerable=answerable(test).sum(),
        )
        .sort("months")
        .select(name.alias("name"), "queries", "subjects", "answerable")
    )


def answerable(protocol: pl.DataFrame) -> pl.Expr:
    """Whether a row is a query whose label the gallery of these rows has, too."""
    gallery = protocol.filter(pl.col("role") == "gallery")["label"].unique()
    return (pl.col("role") == "query") & pl.col("label").is_in(gallery.implode())


def ages(manifest: pl.DataFrame) -> pl.DataFrame:
    return _histogram(manifest, pl.col("age"), WIDTHS[1:])


def months(manifest: pl.DataFrame) -> pl.DataFrame:
    """Of all images, since their subject's first visit."""
    return _histogram(manifest, pl.col("months").round(), MONTHS)


def images_per_subject(manifest: pl.DataFrame) -> pl.DataFrame:
    subjects = manifest.group_by("subject", "split").agg(images=pl.len().cast(pl.Float64))
    return _histogram(subjects, pl.col("images"), WIDTHS, first=1)


def grades(manifest: pl.DataFrame) -> pl.DataFrame:
    return _histogram(manifest, pl.col("grade").cast(pl.Float64), WIDTHS)


def _histogram(frame: pl.DataFrame, value: pl.Expr, widths: tuple[int, ...], first: int = 0) -> pl.DataFrame:
    """Bins of one width, the narrowest that gives at most ``BINS``, without gaps: name, and per split the share that is in it.

    Bins begin at ``first`` and multiples of the width from there. Shares are of what has a value; no row where nothing has one. A bin of several values is named "from–to", or after the
    one value that it holds where that is true of all bins.
    """
    known = frame.select("split", value=value - first).drop_nulls()
    if not len(known):
        return pl.DataFrame(schema={"name": pl.String, "train": pl.Float64, "test": pl.Float64})
    low, high = (float(v) for v in (known["value"].min(), known["value"].max()))  # type: ignore[arg-type]
    width = next((w for w in widths if high // w - low // w < BINS), widths[-1])
    binned = known.with_columns(bin=(pl.col("value") / width).floor().cast(pl.Int64))
    alone = bool((binned["bin"] * width == binned["value"]).all())
    totals = {split: max(1, (known["split"] == split).sum()) for split in ("train", "test")}
    counts = binned.group_by("bin").agg((pl.col("split") == split).sum().alias(split) for split in totals)
    bins = pl.DataFrame({"bin": range(int(low // width), int(high // width) + 1)}, {"bin": pl.Int64})
    start = pl.col("bin") * width + first
    name = start.cast(pl.String) if alone else pl.format("{}–{}", start, start + width - 1)
    return (
        bins.join(counts, on="bin", how="left")
        .sort("bin")
        .select(name.alias("name"), *(pl.col(split).fill_null(0) / n for split, n in totals.items()))
    )
