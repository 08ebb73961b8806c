"""The commands ``embed`` and ``match``: a trained network on images of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from marginlab.shell import HERE, TRACKING, Bar, WorkspaceOption, console, say_next

if TYPE_CHECKING:
    import polars as pl

    from marginlab.matching.embed import Embedded
    from marginlab.matching.model import Embedder

IMAGES = (
    "A folder (searched through), an image, or a list: .txt with a file per line, or .csv with the columns file and, where "
    "wanted, side (L or R) or flip (true or false)"
)
Model = Annotated[
    str,
    typer.Argument(help="models:/STUDY-oai@champion or another MLflow URI, a model's folder, or the folder of a run."),
]
TrackingOption = Annotated[
    str | None, typer.Option(envvar=TRACKING, help="The MLflow server of a URI; by default the workspace's database.")
]
FlipOption = Annotated[
    bool,
    typer.Option(
        "--flip", help="Mirror every image whose side is not in a list: right knees, where the model has them so."
    ),
]
TrustOption = Annotated[
    bool, typer.Option("--trust-code", help="Run the code of a study's own network that lies with the model.")
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU where there is one.")]
SHOWN = 10  # queries in the terminal


def embed(
    model: Model,
    images: Annotated[str, typer.Argument(help=IMAGES + ".")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write: file, embedding.")] = Path("embeddings.parquet"),
    flip: FlipOption = False,
    trust_code: TrustOption = False,
    workspace: WorkspaceOption = HERE,
    tracking_uri: TrackingOption = None,
    device: DeviceOption = None,
) -> None:
    """Embed images with a trained network: made the model's size as marginlab prepare does it, on the unit sphere.

    Images that cannot be read are listed in OUT.unreadable.csv and passed over. No code in the model's folder is run,
    unless --trust-code says so. PNG, JPEG, TIFF and DICOM are read.
    """
    from marginlab.matching import embed as embedding
    from marginlab.matching.images import listed
    from marginlab.matching.model import opened
    from marginlab.values import InputError
    from marginlab.workspace import Workspace

    if out.suffix.lower() != ".parquet":
        raise InputError(f"{out}: embeddings are written as Parquet; end the name with .parquet.")
    with opened(
        model, Workspace.at(workspace).root, tracking_uri=tracking_uri, trust_code=trust_code, device=device
    ) as network:
        pictures = listed(images, network.config, flip)
        with Bar("embedding") as bar:
            made = embedding.embed(network, pictures, bar.at)
        lost = embedding.write(made, network, out)
        _warn(network, pictures.unsided, rates=False)
    _said(made, lost)
    console.print(
        f"{out}: {len(made.frame)} embeddings of {made.embeddings.shape[1]} numbers", highlight=False, soft_wrap=True
    )
    console.print("[dim]Embeddings of people are biometric templates: keep them as you keep the images.[/]")
    store = f" --tracking-uri {tracking_uri}" if tracking_uri else f" --workspace {workspace}"
    say_next(f"marginlab match {model} QUERIES {out}{store}")


def match(
    model: Model,
    query: Annotated[str, typer.Argument(help=IMAGES + "; or what marginlab embed wrote with the same model.")],
    gallery: Annotated[str, typer.Argument(help="The images to search, given in the same ways.")],
    top: Annotated[int, typer.Option(help="Matches per query.")] = 5,
    out: Annotated[Path, typer.Option(help="The table to write, .csv or .parquet.")] = Path("matches.csv"),
    flip: FlipOption = False,
    trust_code: TrustOption = False,
    workspace: WorkspaceOption = HERE,
    tracking_uri: TrackingOption = None,
    device: DeviceOption = None,
) -> None:
    """Find the most similar gallery images of each query, and say how often images of strangers are as similar.

    The rate is of one comparison, counted on the validation images that the model was chosen by: in a gallery of 1000
    strangers, a rate of 0.001 gives one such match by chance. It does not hold for other scanners, populations or ways of
    preparing images.
    """
    from marginlab.matching import embed as embedding
    from marginlab.matching import match as matching
    from marginlab.matching.model import opened
    from marginlab.workspace import Workspace

    matching.check(out)
    with opened(
        model, Workspace.at(workspace).root, tracking_uri=tracking_uri, trust_code=trust_code, device=device
    ) as network:
        sides = []
        for what, given in (("queries", query), ("gallery", gallery)):
            with Bar(what) as bar:
                made, unsided = matching.side(network, given, flip, bar.at)
            sides.append((made, unsided))
        (queries, _), (searched, _) = sides
        found = matching.match(network, queries, searched, top)
        matching.write(found, out)
        for what, (made, _) in zip(("queries", "gallery"), sides, strict=True):
            _said(made, embedding.report(made.unreadable, out.with_name(f"{out.stem}.{what}{out.suffix}")))
        _warn(network, sum(unsided for _, unsided in sides), rates=True)
    _shown(found)
    console.print(
        f"{out}: {len(found)} matches of {len(queries.frame)} queries among {len(searched.frame)} images",
        highlight=False,
        soft_wrap=True,
    )
    say_next(f"look at the pairs of {out} yourself: a similarity suggests, it does not identify")


def _said(made: Embedded, lost: Path | None) -> None:
    if lost is not None:
        several = f"{len(made.unreadable)} image{'' if len(made.unreadable) == 1 else 's'}"
        console.print(f"[yellow]{several} could not be read:[/] {lost}", highlight=False, soft_wrap=True)


def _warn(network: Embedder, unsided: int, rates: bool) -> None:
    said = network.lacks(rates)
    mirrored = network.config.get("mirrored")
    if unsided and mirrored is not None:
        said.append(
            f"The model saw images of side {', '.join(mirrored)} mirrored; {unsided} images of unknown side were taken as they "
            "are. Give a list with the column side, or --flip."
        )
    if network.phantom and rates:
        said.append(
            f"RATES OF PHANTOMS: counted on {network.phantom}, synthetic images. They say nothing about patients."
        )
    for sentence in said:
        console.print(f"[bold yellow]{escape(sentence)}[/]", highlight=False, soft_wrap=True)


def _shown(found: pl.DataFrame) -> None:
    from marginlab.matching.match import shown_rate

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("query", "nearest", "similarity", "false-match rate", "at most (95%)"):
        table.add_column(header, justify="left" if header in ("query", "nearest") else "right", overflow="fold")
    first = found.filter(rank=1)
    for row in first.head(SHOWN).iter_rows(named=True):
        upper = row["false_match_upper"]
        table.add_row(
            escape(row["query"]),
            escape(row["match"]),
            f"{row['similarity']:.3f}",
            shown_rate(row["false_match_rate"], bool(row["false_match_below"])),
            "unknown" if upper is None else f"{upper:.2g}",
        )
    console.print(table)
    if len(first) > SHOWN:
        console.print(f"[dim]and {len(first) - SHOWN} more queries[/]")
