"""Embeddings of a user's images, as a table."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from marginlab.files import write_bytes
from marginlab.matching.images import Pictures, decoded
from marginlab.matching.model import Embedder
from marginlab.values import InputError

MODEL = "marginlab.model"  # in the Parquet file's metadata: what the embeddings were made with
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True, eq=False)
class Embedded:
    """The images that could be read, and those that could not."""

    frame: pl.DataFrame  # file, embedding (fixed-size list of float32)
    path: tuple[str, ...]  # where each file is, to know it again
    unreadable: pl.DataFrame  # file, reason

    @property
    def embeddings(self) -> np.ndarray:
        """float32 [n, D]"""
        return self.frame["embedding"].to_numpy()


def embed(
    model: Embedder, pictures: Pictures, progress: Progress | None = None, workers: int | None = None
) -> Embedded:
    """Embed images in their order. One that cannot be read is noted and passed over.

    Raises:
        InputError: none of them can be read.
    """
    items, done = pictures.items, 0
    kept: list[int] = []
    parts: list[np.ndarray] = []
    unreadable: list[tuple[str, str]] = []
    for block in decoded(items, model.config, workers):
        pixels = []
        for place, image in enumerate(block, start=done):
            if isinstance(image, str):
                unreadable.append((items[place].name, image))
            else:
                kept.append(place)
                pixels.append(image)
        if pixels:
            parts.append(model(np.stack(pixels)))
        done += len(block)
        if progress is not None:
            progress(done, len(items))
    if not parts:
        name, why = unreadable[0]
        raise InputError(f"None of the {len(items)} images can be read; the first is {name}: {why}.")
    embeddings = np.concatenate(parts)
    frame = pl.DataFrame(
        {
            "file": [items[i].name for i in kept],
            "embedding": pl.Series(embeddings, dtype=pl.Array(pl.Float32, embeddings.shape[1])),
        }
    )
    lost = pl.DataFrame(unreadable, {"file": pl.String, "reason": pl.String}, orient="row")
    return Embedded(frame, tuple(str(items[i].path.resolve()) for i in kept), lost)


def write(embedded: Embedded, model: Embedder, out: Path) -> Path | None:
    """Write the Parquet file, whole or not at all; returns the report of what could not be read, if anything could not."""
    whole = io.BytesIO()
    embedded.frame.write_parquet(whole, metadata={MODEL: model.id})
    write_bytes(out, whole.getvalue(), patient=False)
    return report(embedded.unreadable, out)


def report(unreadable: pl.DataFrame, out: Path) -> Path | None:
    """``OUT.unreadable.csv`` beside ``out``, a line per image; none, and no old one, where all could be read."""
    path = out.with_name(f"{out.stem}.unreadable.csv")
    if not len(unreadable):
        path.unlink(missing_ok=True)
        return None
    write_bytes(path, unreadable.write_csv().encode(), patient=False)
    return path


def read(path: Path, model: Embedder) -> Embedded:
    """What :func:`write` wrote.

    Raises:
        InputError: it holds something else, or embeddings of another model.
    """
    try:
        made_with = pl.read_parquet_metadata(path).get(MODEL)
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError:
        raise InputError(f"{path}: the file is damaged, or no Parquet file.") from None
    if made_with is None or frame.columns != ["file", "embedding"]:
        raise InputError(f"{path} was not written by marginlab embed.")
    if made_with != model.id:
        raise InputError(
            f"{path} holds embeddings of another model, and two models' cannot be compared: embed it anew."
        )
    where = tuple(str(Path(name).resolve()) for name in frame["file"])
    return Embedded(frame, where, pl.DataFrame(schema={"file": pl.String, "reason": pl.String}))
