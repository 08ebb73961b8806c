"""Decode once: a raw folder becomes a packed dataset, whose pixels are memory-mapped.

A packed dataset is a folder: ``manifest.parquet``, ``images.npy`` (uint8 [N, C, size, size]), ``dataset.json`` and
``report.json``. It names neither people nor files (private.py).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
import polars as pl

from marginlab.data import manifest as mf
from marginlab.data.decode import Decoder
from marginlab.data.packed import FORMAT, PackedDataset
from marginlab.data.phantom import phantom_of
from marginlab.data.private import default_folder, key_of, pseudonym, write_private
from marginlab.data.raw import RawTable, Reader, conform
from marginlab.data.splits import with_folds
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
) -> PackedDataset:
    """Read, decode and split the raw folder ``root`` into the packed dataset ``out``, which appears whole or not at all.

    crop: side of the centre crop in pixels, 0 for none, by default the reader's own choice.
    unreadable_limit: share of the images that may be left out because they cannot be decoded.
    workers: decoding processes, by default one per core. They are spawned, so a script that asks for more than one keeps
    its own work below ``if __name__ == "__main__"``.
    phantom: version of the generator, if the images are synthetic; by default what a rendered folder says of itself.
    private: folder for the file that maps rows to raw files (private.py). progress: called with (done, total).
    """
    root, out = Path(root), Path(out).absolute()
    phantom = phantom or phantom_of(root)
    secret = Path(private).absolute() if private is not None else default_folder().absolute()
    _check_arguments(root, out, secret, size, unreadable_limit)
    table = reader.read(root)
    rows = with_folds(conform(table.rows, str(root)), str(root)).with_columns(mf.role())
    if label == "subject-side" and rows["side"].null_count():
        file = rows.filter(pl.col("side").is_null())["path"][0]
        raise InputError(f"{root}: the label subject-side needs a side for every image; {file} has none.")
    rows = rows.with_columns(label=mf.label(label))
    decoder = Decoder(root, size, table.channels, table.crop if crop is None else crop or None, table.trim)
    with _partial(out) as folder:
        with open(folder / "images.npy", "wb") as file:
            unreadable = _decode_all(decoder, rows, file, unreadable_limit, workers, progress)
        kept = rows.filter(~pl.int_range(pl.len()).is_in(list(unreadable))).with_row_index("row")
        pixels = np.load(folder / "images.npy", mmap_mode="r")
        fingerprint = mf.dataset_fingerprint(pixels, kept, table.mean, table.std)
        secret_file = secret / f"{fingerprint}.json"
        key = key_of(secret_file)
        manifest = _pseudonymous(kept, key, label, table.channels)
        mf.validate(manifest, str(out))
        manifest.write_parquet(folder / "manifest.parquet")
        info = {"name": name, "reader": type_tag(type(reader)), "label": label, "size": size, "phantom": phantom}
        info |= {"channels": table.channels, "mean": table.mean, "std": table.std, "crop": decoder.crop}
        info |= {"mirrored": _mirrored(rows), "trim": decoder.trim}
        info |= {"fingerprint": fingerprint, "images": len(manifest), "format": FORMAT}
        _write_json(folder / "dataset.json", info)
        _write_json(folder / "report.json", _report(table, rows, unreadable, unreadable_limit))
        _sync(folder)
        write_private(secret_file, key, _private(table, root, name, rows, kept, unreadable))
    return PackedDataset.open(out)


def _check_arguments(root: Path, out: Path, secret: Path, size: int, limit: float) -> None:
    if not root.is_dir():
        raise InputError(f"{root}: this raw folder does not exist.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: something is there already; remove it, or prepare into another folder.")
    if secret.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{secret}: the private file must not lie in the packed dataset; choose another folder.")
    above = next(p for p in (secret, *secret.parents) if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):  # better now than after an hour of decoding
        raise InputError(f"{secret}: the private file cannot be written there; choose another folder with `private`.")
    if size < 1:
        raise InputError(f"The size of the stored images must be at least 1 pixel, not {size}.")
    if not 0 <= limit < 1:
        raise InputError(f"The limit of unreadable images is a share from 0 to below 1, not {limit}.")


def _decode_all(
    decoder: Decoder,
    rows: pl.DataFrame,
    out: IO[bytes],
    limit: float,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[int, str]:
    """Append the images to ``out`` in the order of their records; returns {record: why it could not be read}."""
    total, unreadable = len(rows), {}
    shape = (decoder.channels, decoder.size, decoder.size)
    _write_header(out, (total, *shape))
    start = out.tell()
    tasks = list(zip(rows["path"], rows["flip"], strict=True))
    if workers is None:
        workers = (os.cpu_count() or 1) if total >= INLINE else 1
    with _mapped(decoder, tasks, workers) as results:
        for record, pixels in enumerate(results):
            if isinstance(pixels, str):
                unreadable[record] = pixels
                _check_limit(decoder.root, rows, unreadable, limit)
            else:
                out.write(pixels.tobytes())
            if progress is not None:
                progress(record + 1, total)
    out.seek(0)
    _write_header(out, (total - len(unreadable), *shape))
    if out.tell() != start:  # numpy pads the header so that the first axis can change
        raise RuntimeError("numpy changed the length of the .npy header.")
    return unreadable


@contextmanager
def _mapped(decoder: Decoder, tasks: list[tuple[str, bool]], workers: int) -> Iterator[Iterator[np.ndarray | str]]:
    if workers <= 1:
        yield map(decoder, tasks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool.map(decoder, tasks, chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)


def _write_header(out: IO[bytes], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})


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


@contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes ``out`` if the block succeeds and vanishes if it does not.

    Folders that killed processes of this host left behind are removed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}.partial-{socket.gethostname()}-"
    for old in out.parent.glob(prefix + "*"):
        if not _alive(int(old.name.removeprefix(prefix))):
            shutil.rmtree(old, ignore_errors=True)
    folder = out.parent / f"{prefix}{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(folder: Path) -> None:
    """To the disk, before the rename: a folder that survives a power cut under its name is whole."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
