"""Decode once: a raw folder becomes a packed dataset, whose pixels are memory-mapped.

A packed dataset is a folder: ``manifest.parquet``, ``images.npy`` (uint8 [N, C, size, size]), ``dataset.json``,
``report.json`` and ``report.html``. It names neither people nor files (private.py).

Killed at any moment and called again, ``prepare`` carries on (partial.py) and ends with the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import polars as pl

from marginlab.data import manifest as mf
from marginlab.data.adding import Before, become, before, is_there, restore
from marginlab.data.checks import Reading, checks
from marginlab.data.decode import Decoder
from marginlab.data.decoding import Hands, Task, cores, here
from marginlab.data.packed import FORMAT, PackedDataset
from marginlab.data.partial import Partial, keys_of
from marginlab.data.phantom import phantom_of
from marginlab.data.private import default_folder, digest_key, key_of, pseudonym, write_private
from marginlab.data.raw import RawTable, Reader, conform
from marginlab.data.splits import leak, leak_sentence, with_folds
from marginlab.lock import Held, locked
from marginlab.values import InputError, type_tag

INLINE = 256  # images: fewer are decoded here, in less time than processes take to start


def prepare(
    reader: Reader,
    root: Path | str,
    out: Path | str,
    *,
    name: str,
    size: int = 280,
    label: str = "subject",
    crop: int | None = None,
    unreadable_limit: float = 0.01,
    workers: int | None = None,
    phantom: str | None = None,
    private: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    extend: bool = False,
    hands: Hands | None = None,
) -> PackedDataset:
    """Read, decode and split the raw folder ``root`` into the packed dataset ``out``, which appears whole or not at all.

    What is decoded before a kill is kept in ``.<out>.partial`` beside it, and the same call carries on.

    crop: side of the centre crop in pixels, 0 for none, by default the reader's own choice.
    unreadable_limit: share of the images that may be left out because they cannot be decoded.
    workers: decoding processes, by default one per core. They are spawned, so a script that asks for more than one keeps
    its own work below ``if __name__ == "__main__"``.
    phantom: version of the generator, if the images are synthetic; by default what a rendered folder says of itself.
    private: folder for the file that maps rows to raw files (private.py). progress: called with (done, total).
    extend: where ``out`` is there, put what the raw folder has now in its place, as if prepared anew but with the same
    pseudonyms: only images whose file is new or has changed are decoded.
    hands: who decodes, instead of processes of this machine (``marginlab.cluster.decoding.on_ray``).
    """
    from marginlab.data.page import write_page  # templates take a moment to import, and most commands prepare nothing

    root, out = Path(root), Path(out).absolute()
    phantom = phantom or phantom_of(root)
    secret = Path(private).absolute() if private is not None else default_folder().absolute()
    _check_arguments(root, out, secret, size, unreadable_limit, extend)
    table = reader.read(root)
    rows = with_folds(conform(table.rows, str(root)), str(root), table.leaks).with_columns(mf.role(label))
    named = mf.label(label)  # of raw identifiers, and refused here where there is no such label
    needed = {"subject-side": "side", "grade": "grade"}.get(label)
    if needed and rows[needed].null_count():
        file = rows.filter(pl.col(needed).is_null())["path"][0]
        raise InputError(f"{root}: the label {label} needs a {needed} for every image; {file} has none.")
    rows = rows.with_columns(label=named)
    decoder = Decoder(root.absolute(), size, table.channels, table.crop if crop is None else crop or None, table.trim)
    info: dict[str, Any] = {
        "name": name,
        "reader": type_tag(type(reader)),
        "label": label,
        "size": size,
        "phantom": phantom,
    }
    info |= {"channels": table.channels, "mean": table.mean, "std": table.std, "crop": decoder.crop}
    info |= {"mirrored": _mirrored(rows), "trim": decoder.trim}
    with _alone(out):
        restore(out)
        _check_place(out, extend)
        old = before(out, secret, info, set(rows["path"])) if is_there(out) else Before()
        tasks = list(zip(rows["path"], rows["flip"], strict=True))
        shape = (table.channels, size, size)
        partial = Partial(
            out.with_name(f".{out.name}.partial"), keys_of(decoder, tasks, digest_key(secret)), shape, old.pool
        )
        with closing(partial):
            _decode_all(partial, decoder, rows, tasks, unreadable_limit, hands, workers, progress)
            folder = partial.finish()
        unreadable = dict(sorted(partial.lost.items()))
        kept = rows.filter(pl.Series(partial.done)).with_row_index("row")
        reading = Reading(np.load(folder / "images.npy", mmap_mode="r"))
        fingerprint = reading.fingerprint(kept, table.mean, table.std)
        secret_file = secret / f"{fingerprint}.json"
        key = key_of(secret_file, old.key)
        manifest = _pseudonymous(kept, key, label, table.channels)
        if table.leaks:
            counted = leak(manifest)
            info["leak"] = {**counted, "sentence": leak_sentence(counted)}
        mf.validate(manifest, str(out), info.get("leak"))
        manifest.write_parquet(folder / "manifest.parquet")
        info |= {"fingerprint": fingerprint, "images": len(manifest), "format": FORMAT}
        _write_json(folder / "dataset.json", info | {"checks": checks(reading, manifest)})
        report = _report(table, rows, unreadable, unreadable_limit)
        report["problems"] += [info["leak"]["sentence"]] if table.leaks else []  # of the images that are kept
        _write_json(folder / "report.json", report)
        write_page(PackedDataset.open(folder))
        _sync(folder)
        found = {
            "keys": [key.hex() for key, done in zip(partial.keys, partial.done, strict=True) if done],
            "crc": reading.crc.tolist(),
        }
        write_private(secret_file, key, _private(table, root, name, rows, kept, unreadable) | found)
        become(folder, out)
        partial.clear()
    return PackedDataset.open(out)


def _check_arguments(root: Path, out: Path, secret: Path, size: int, limit: float, extend: bool) -> None:
    if not root.is_dir():
        raise InputError(f"{root}: this raw folder does not exist.")
    _check_place(out, extend)
    if secret.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{secret}: the private file must not lie in the packed dataset; choose another folder.")
    above = next(p for p in (secret, *secret.parents) if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):  # better now than after an hour of decoding
        raise InputError(f"{secret}: the private file cannot be written there; choose another folder with `private`.")
    if size < 1:
        raise InputError(f"The size of the stored images must be at least 1 pixel, not {size}.")
    if not 0 <= limit < 1:
        raise InputError(f"The limit of unreadable images is a share from 0 to below 1, not {limit}.")


def _check_place(out: Path, extend: bool) -> None:
    if is_there(out) and not extend:
        raise InputError(
            f"{out}: something is there already; add new images to it with extend, remove it, or prepare into another folder."
        )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    try:
        with locked(out.with_name(f".{out.name}.lock")):
            yield
    except Held as e:
        raise InputError(f"{out}: this dataset is being prepared already, {e}; wait for it, or end it there.") from None


def _decode_all(
    partial: Partial,
    decoder: Decoder,
    rows: pl.DataFrame,
    tasks: Sequence[Task],
    limit: float,
    hands: Hands | None,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Decode what is not decoded yet."""
    chunks = partial.pending()
    done = len(tasks) - sum(map(len, chunks))
    if hands is None:
        hands = here(workers or (cores() if len(tasks) - done >= INLINE else 1))
    if progress is not None and done:
        progress(done, len(tasks))
    with closing(hands(decoder, ([tasks[i] for i in records] for records in chunks))) as decoded:
        for number, chunk in decoded:
            records = chunks[number]
            partial.write(records.start, chunk)
            if chunk.lost:
                _check_limit(decoder.root, rows, partial.lost, limit)
            for _ in records:
                done += 1
                if progress is not None:
                    progress(done, len(tasks))


def _check_limit(root: Path, rows: pl.DataFrame, unreadable: dict[int, str], limit: float) -> None:
    if len(unreadable) > limit * len(rows):
        named = "; ".join(f"{rows['path'][i]}: {why}" for i, why in list(unreadable.items())[:3])
        raise InputError(
            f"{root}: at least {len(unreadable)} of {len(rows)} images cannot be read, more than the limit of "
            f"{limit:.2%} ({named}). Restore them, or raise the limit to leave them out."
        )


def _mirrored(rows: pl.DataFrame) -> list[str] | None:
    """The sides whose images are mirrored, so that others can be made ready alike; None where it is not a matter of sides."""
    sides = rows.filter("flip")["side"].unique()
    if sides.null_count():
        return None
    explained = rows["side"].is_in(sides.implode()).fill_null(False) == rows["flip"]
    return sorted(sides) if explained.all() else None


def _pseudonymous(kept: pl.DataFrame, key: bytes, label: str, channels: int) -> pl.DataFrame:
    names = {subject: pseudonym(key, subject) for subject in kept["subject"].unique()}
    return (
        kept.with_columns(
            pl.col("row").cast(pl.Int64),
            subject=pl.col("subject").replace_strict(names, return_dtype=pl.String),
            channels=pl.lit(channels, pl.Int8),
        )
        .with_columns(label=mf.label(label))
        .select(*mf.SCHEMA)
    )


def _report(table: RawTable, rows: pl.DataFrame, unreadable: dict[int, str], limit: float) -> dict[str, Any]:
    return {
        "records": len(rows),
        "images": len(rows) - len(unreadable),
        "unreadable": [{"record": record, "reason": why} for record, why in unreadable.items()],
        "unreadable_limit": limit,
        "problems": [problem.sentence for problem in table.problems],
        "pillow": PIL.__version__,  # another version may resize to slightly other pixels
    }


def _private(
    table: RawTable, root: Path, name: str, rows: pl.DataFrame, kept: pl.DataFrame, unreadable: dict[int, str]
) -> dict[str, Any]:
    return {
        "dataset": name,
        "root": str(root.resolve()),
        "files": kept["path"].to_list(),  # by row
        "subjects": kept["subject"].to_list(),
        "unreadable": {rows["path"][record]: why for record, why in unreadable.items()},
        "problems": {problem.sentence: problem.items for problem in table.problems},
    }


def _sync(folder: Path) -> None:
    """To the disk, before the rename: a folder that survives a power cut under its name is whole."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
