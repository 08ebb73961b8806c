"""The commands ``phantom``, ``prepare`` and ``verify``: from raw images to a dataset that can be trained on."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from marginlab.data.phantom import PHANTOMS, deliveries
from marginlab.shell import HERE, Bar, WorkspaceOption, console, say_next
from marginlab.values import InputError

if TYPE_CHECKING:
    from marginlab.data.packed import PackedDataset
    from marginlab.study import Dataset
    from marginlab.workspace import Workspace


def phantom(
    dataset: Annotated[str, typer.Argument(help="Which layout: oai, cxr14 or eyepacs.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist.")],
    subjects: Annotated[int | None, typer.Option(help="How many subjects; by default the demo's number.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels per side.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other subjects.")] = 0,
    delivery: Annotated[
        list[str] | None,
        typer.Option(
            help="Another form of the files than the usual one, which is named first; may be given again. Of "
            + " Of ".join(f"{name}: {deliveries(value)}." for name, value in PHANTOMS.items())
        ),
    ] = None,
) -> None:
    """Render synthetic subjects, their images and tables, in a real dataset's own file layout.

    In every form that a dataset is delivered in; prepare makes the same of all, but for what JPEG loses (docs/datasets.md).
    """
    from marginlab.data.phantom import delivered, write

    if dataset not in PHANTOMS:
        raise InputError(f"There is no phantom {dataset!r}; there are {', '.join(PHANTOMS)}.")
    if out.exists():
        raise InputError(f"{out} exists: name a new folder.")
    given = {"subjects": subjects, "size": size, "seed": seed}
    chosen: dict[str, Any] = {field: v for field, v in given.items() if v is not None}
    value = delivered(dataclasses.replace(PHANTOMS[dataset], **chosen), delivery or ())
    partial = out.with_name(out.name + ".partial")
    with Bar(f"rendering {dataset}") as progress:
        write(value, partial, progress=lambda done, total: progress("", done, total))
    partial.rename(out)
    say_next(f"marginlab prepare {dataset} {out} --size {value.size}")


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(help="Which reader: oai, cxr14, eyepacs, eyepacs-by-image, or table for a table of your own."),
    ],
    root: Annotated[Path, typer.Argument(help="The raw folder, as the data provider delivered it; or your table.")],
    size: Annotated[
        int, typer.Option(help="Pixels per side, as stored; 280 and (eyepacs) 256 are the published ones.")
    ] = 280,
    label: Annotated[
        str | None,
        typer.Option(
            help="What counts as the same: subject, subject-side (each knee) or grade; by default the grade of EyePACS, where "
            "nobody is seen twice, and else the subject."
        ),
    ] = None,
    unreadable: Annotated[
        float,
        typer.Option(help="The largest share of images that may be left out because they cannot be read: 0.01 is 1%."),
    ] = 0.01,
    name: Annotated[
        str | None, typer.Option(help="Of table alone: the dataset's name; by default the table's file name.")
    ] = None,
    colour: Annotated[bool, typer.Option("--colour", help="Of table alone: images keep their three channels.")] = False,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Add to a dataset that was prepared before: only new or changed files are decoded."
        ),
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Decoding processes; by default one per core.", min=1)] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Decode on all nodes of this Ray cluster, such as head:6379, which see the raw folder alike."
        ),
    ] = None,
    contact_sheet: Annotated[
        bool,
        typer.Option(
            "--contact-sheet", help="Write contact-sheet.html, too: a few subjects and their visits. It shows people."
        ),
    ] = False,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Decode a raw folder once: manifest, splits and folds, leak check, memory-mapped images.

    Writes workspace/data/DATASET-ID/, with a page to read first: report.html. What must lie where: docs/datasets.md.

    Stopped at any moment and called again, it carries on where it was.

    A table of your own (CSV or Parquet) has a row per image: path, subject, months or date, and what else you know of it.
    """
    from marginlab.data.page import REPORT, write_contact_sheet, write_page
    from marginlab.data.table import Table
    from marginlab.study import Dataset
    from marginlab.workspace import Workspace

    reader = Table(root.name, channels=3 if colour else 1) if dataset == "table" else None
    if reader is None and (name or colour):
        raise InputError("--name and --colour are for a table of your own; the other readers know theirs.")
    if address is not None and workers is not None:
        raise InputError("--workers is for this machine alone: with --address all CPUs of the cluster decode.")
    if reader is not None:
        dataset, root = name or root.stem, root.parent
    label = label or ("grade" if dataset.startswith("eyepacs") else "subject")
    declared = Dataset(dataset, root=str(root), reader=reader, size=size, label=label, unreadable=unreadable)
    space = Workspace.at(workspace)
    there = space.packed(declared).exists()
    try:
        packed = _prepared(space, declared, extend, workers, address)
    except KeyboardInterrupt:
        console.print("Interrupted. What was decoded is kept; the same command carries on.")
        raise typer.Exit(130) from None
    if not (packed.folder / REPORT).exists():  # prepared by an earlier version
        with suppress(OSError):  # somebody else's folder
            write_page(packed)
    _described(packed)
    if contact_sheet:
        console.print(f"  contact sheet: {write_contact_sheet(packed)}", highlight=False, soft_wrap=True)
    if there and not extend:
        console.print(
            "It was there already, and nothing was read again. If the raw folder has more images now, --extend adds them; "
            "its fingerprint changes with them, and a study that began on it will refuse to go on.",
            highlight=False,
            soft_wrap=True,
        )
    given = {"label": label, "unreadable": unreadable}
    fields = "".join(f", {k}={v!r}" for k, v in given.items() if v != getattr(Dataset, k))
    if reader is not None:
        fields += f", reader=Table({reader.file!r}{', channels=3' if colour else ''})"
    say_next(
        f"use Dataset({dataset!r}, root={str(root)!r}, size={size}{fields}) in a study file, then marginlab plan STUDY.py"
    )


def _prepared(
    space: Workspace, declared: Dataset, extend: bool, workers: int | None, address: str | None
) -> PackedDataset:
    with Bar(f"preparing {declared.name}") as progress:
        if address is None:
            return space.prepare(declared, progress, extend=extend, workers=workers)
        from marginlab.cluster.decoding import on_ray
        from marginlab.cluster.session import session

        with session(address):
            return space.prepare(declared, progress, extend=extend, hands=on_ray)


def _described(packed: PackedDataset) -> None:
    d = packed.describe()
    console.print(f"[bold]{packed.folder}[/]", highlight=False, soft_wrap=True)
    for part in ("train", "test"):
        c = d["splits"][part]
        roles = [f"{c['gallery']} in the gallery"] if c["gallery"] else []
        if c["queries"]:
            months = ", ".join(map(str, c["horizons"]))
            roles.append(f"{c['queries']} queries" + (f" at {months} months" if months else ""))
        counted = [f"{c['images']} images", f"{c['subjects']} subjects", *roles]
        console.print(f"  {part}: {', '.join(counted)}", highlight=False, soft_wrap=True)
    if leak := packed.info.get("leak"):
        console.print(f"  [yellow]{leak['sentence']}[/]", highlight=False, soft_wrap=True)
    page = next(p for p in (packed.folder / "report.html", packed.folder / "report.json") if p.exists())
    console.print(
        f"  fingerprint {packed.fingerprint}; what is in it and what was left out: {page}",
        highlight=False,
        soft_wrap=True,
    )


def verify(
    folder: Annotated[Path, typer.Argument(help="A packed dataset: the folder that marginlab prepare named.")],
) -> None:
    """Read all of a packed dataset and say whether it is what was prepared: counts, shapes, check sums, leaks.

    What is wrong is named in a sentence, with exit code 2. What a person should look at is listed.
    """
    from marginlab.data.verify import verify as verified

    with Bar(f"verifying {folder.name}") as progress:
        found = verified(folder, progress=progress.at)
    _described(found.dataset)
    fits = (
        "images, table and fingerprint"
        if found.summed
        else "the fingerprint (there are no check sums: it is an old one)"
    )
    parted = "" if found.dataset.info.get("leak") else "; no subject is in two splits or folds"
    console.print(f"[bold green]As it was prepared:[/] {fits}{parted}.", highlight=False, soft_wrap=True)
    for warning in found.warnings:
        console.print(f"[yellow]Look at this:[/] {escape(warning)}", highlight=False, soft_wrap=True)
    say_next(f"give it to a study: Dataset({found.dataset.name!r}, ...), then marginlab plan STUDY.py")
