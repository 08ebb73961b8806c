"""The command line. It reads, calls the library, draws, and ends by saying what to do next."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from marginlab.values import InputError

if TYPE_CHECKING:
    from marginlab.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Studies of margins in metric learning: does a margin that tunes itself match the best that a search can find?",
)
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 110)
errors = Console(stderr=True, soft_wrap=True)

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", help="The folder that all of your output lives in.")
]
StudyFile = Annotated[str, typer.Argument(help="A study file, or file.py:name for another study in it than 'study'.")]
StudyName = Annotated[str | None, typer.Argument(help="A study's name; by default the latest one of the workspace.")]
Address = Annotated[
    str | None, typer.Option(help="A running Ray cluster, such as head:6379; by default Ray is started here.")
]
HERE = Path("workspace")


@app.command(epilog="Example:  marginlab phantom oai --out raw/oai --subjects 60 --size 96")
def phantom(
    dataset: Annotated[str, typer.Argument(help="Which layout: oai or cxr14.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist.")],
    subjects: Annotated[int | None, typer.Option(help="How many subjects; by default the demo's number.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels per side.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other subjects.")] = 0,
) -> None:
    """Render synthetic subjects that age, in a real dataset's own file layout."""
    import dataclasses

    from marginlab.data.phantom import PHANTOMS, write

    if dataset not in PHANTOMS:
        raise InputError(f"There is no phantom {dataset!r}; there are {', '.join(PHANTOMS)}.")
    if out.exists():
        raise InputError(f"{out} exists: name a new folder.")
    chosen = {k: v for k, v in {"subjects": subjects, "size": size, "seed": seed}.items() if v is not None}
    value = dataclasses.replace(PHANTOMS[dataset], **chosen)
    partial = out.with_name(out.name + ".partial")
    with _bar(f"rendering {dataset}") as progress:
        write(value, partial, progress=lambda done, total: progress("", done, total))
    partial.rename(out)
    _next(f"marginlab prepare {dataset} {out} --size {value.size}")


@app.command(epilog="Example:  marginlab prepare oai /data/OAI --size 280")
def prepare(
    dataset: Annotated[str, typer.Argument(help="Which reader: oai or cxr14.")],
    root: Annotated[Path, typer.Argument(help="The raw folder, as the data provider delivered it.")],
    size: Annotated[int, typer.Option(help="Pixels per side, as stored.")] = 280,
    label: Annotated[str, typer.Option(help="What counts as the same: subject or subject-side.")] = "subject",
    unreadable: Annotated[
        float, typer.Option(help="The largest share of unreadable images that may be left out.")
    ] = 0.01,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Decode a raw folder once: manifest, splits and folds, leak check, memory-mapped images."""
    from marginlab.study import Dataset

    declared = Dataset(dataset, root=str(root), size=size, label=label, unreadable=unreadable)
    space = _space(workspace)
    with _bar(f"preparing {dataset}") as progress:
        packed = space.prepare(declared, progress)
    d = packed.describe()
    console.print(f"[bold]{packed.folder}[/]", highlight=False, soft_wrap=True)
    for part in ("train", "test"):
        c = d["splits"][part]
        console.print(
            f"  {part}: {c['images']} images, {c['subjects']} subjects, queries at {c['horizons']} months",
            highlight=False,
        )
    console.print(
        f"  fingerprint {packed.fingerprint}; what was left out: {packed.folder / 'report.json'}",
        highlight=False,
        soft_wrap=True,
    )
    limit = f", unreadable={unreadable:g}" if unreadable != Dataset.unreadable else ""
    _next(
        f"use Dataset({dataset!r}, root={str(root)!r}, size={size}{limit}) in a study file, then marginlab plan STUDY.py"
    )


@app.command(epilog="Example:  marginlab plan studies/demo.py")
def plan(
    study: StudyFile,
    workspace: WorkspaceOption = HERE,
    cpus: Annotated[int | None, typer.Option(help="Plan for this many CPUs instead of this machine's.")] = None,
    gpus: Annotated[int | None, typer.Option(help="Plan for this many GPUs instead of this machine's.")] = None,
) -> None:
    """Lay out what a study will do, without doing any of it; refuse what can never be scheduled."""
    from marginlab.declaration import load_study
    from marginlab.outline import outline

    loaded = load_study(study)
    space = _space(workspace)
    space.check_sources(loaded)
    console.print(outline(loaded, space, _resources(cpus, gpus)))
    _next(f"marginlab run {study} --workspace {workspace}")


def _resources(cpus: int | None, gpus: int | None) -> dict[str, float]:
    if gpus is None:
        import torch

        gpus = torch.cuda.device_count()
    return {"CPU": float(cpus or os.cpu_count() or 1), "GPU": float(gpus)}


@app.command(epilog="Example:  marginlab run studies/demo.py")
def run(
    study: StudyFile,
    workspace: WorkspaceOption = HERE,
    address: Address = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs for the Ray that is started here; by default all.")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="An MLflow server; by default a database in the workspace.")
    ] = None,
    allow_embeddings: Annotated[
        bool, typer.Option(help="Send embeddings of restricted images to that server: they are biometric templates.")
    ] = False,
) -> None:
    """Do a whole study: prepare, search, confirm, record, answer. Run again, it carries on where it was."""
    from marginlab.declaration import load_study
    from marginlab.drawing import Watch
    from marginlab.report import print_answer
    from marginlab.results import Results
    from marginlab.running import run_study

    loaded = load_study(study)
    space = _space(workspace)
    console.print(f"[bold]{loaded.name}[/] {loaded.question}", highlight=False)
    try:
        with Watch(console, space.study(loaded.name)) as watch:
            outcome = run_study(
                loaded,
                space,
                on_step=watch.step,
                progress=watch.progress,
                on_trouble=watch.trouble,
                address=address,
                cpus=cpus,
                tracking_uri=tracking_uri,
                allow_embeddings=allow_embeddings,
            )
    except KeyboardInterrupt:
        console.print("Interrupted. What was finished is kept: the same command carries on.")
        raise typer.Exit(130) from None
    print_answer(console, Results.open(outcome.folder), outcome.link)
    console.print(f"\nReport: {outcome.report}", highlight=False, soft_wrap=True)


@app.command(epilog="Example:  marginlab status automargin-demo")
def status(study: StudyName = None, workspace: WorkspaceOption = HERE) -> None:
    """How far a study is: trials, best so far, what is at work, what failed. Also from another terminal while it runs."""
    from marginlab.drawing import status_view
    from marginlab.watching import snapshot

    folder = _study_folder(study, workspace)
    shot = snapshot(folder)
    console.print(status_view(shot))
    _next(
        f"marginlab compare {shot.study} --workspace {workspace}"
        if shot.step == "done"
        else "marginlab run STUDY.py carries on if it was stopped"
    )


@app.command(epilog="Example:  marginlab compare automargin-demo")
def compare(study: StudyName = None, workspace: WorkspaceOption = HERE) -> None:
    """Print a study's answer and write its report again, from its run folders alone."""
    from marginlab.report import print_answer, write_report
    from marginlab.results import Results

    folder = _study_folder(study, workspace)
    results = Results.open(folder)
    print_answer(console, results)
    page = write_report(results, folder / "report", None)
    console.print(f"\nReport: {page}", highlight=False, soft_wrap=True)
    _next(f"marginlab ui --workspace {workspace}")


@app.command(epilog="Example:  marginlab replay trial-0003-f0-1a2b3c4d --epochs 2")
def replay(
    run: Annotated[str, typer.Argument(help="A run's folder, its name, or the beginning of its id.")],
    epochs: Annotated[int | None, typer.Option(help="Stop after as many; by default all that were recorded.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU where there is one.")] = None,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Train one recorded run again, outside Ray, and show that the numbers are the same, or where they part."""
    from marginlab.replay import Epoch, find_data, find_run, summary
    from marginlab.replay import replay as again
    from marginlab.runs import OBJECTIVE

    root = _space(workspace).root
    folder = find_run(root, run)
    console.print(f"[bold]{folder.path.name}[/] {folder.labels}", highlight=False, soft_wrap=True)

    def tell(e: Epoch) -> None:
        recorded, replayed = e.recorded.get(OBJECTIVE, float("nan")), e.replayed.get(OBJECTIVE, float("nan"))
        verdict = "the same" if e.same else f"apart in {', '.join(e.apart)}"
        console.print(
            f"epoch {e.epoch}: {OBJECTIVE} recorded {recorded:.6f}, replayed {replayed:.6f}: {verdict}", highlight=False
        )

    epochs_done = again(folder, find_data(root, folder.run.data), epochs=epochs, device=device, tell=tell)
    console.print(summary(epochs_done), highlight=False)


@app.command(epilog="Example:  marginlab sync --tracking-uri http://mlflow.lab:5000")
def sync(
    study: StudyName = None,
    workspace: WorkspaceOption = HERE,
    tracking_uri: Annotated[
        str | None, typer.Option(help="An MLflow server; by default a database in the workspace.")
    ] = None,
    allow_embeddings: Annotated[
        bool, typer.Option(help="Send embeddings of restricted images to that server.")
    ] = False,
) -> None:
    """Bring MLflow up to date from a study's run folders alone: after an outage, or into an empty or another store."""
    from marginlab.tracking import Tracker

    folder = _study_folder(study, workspace)
    counts = Tracker(_space(workspace).root, folder, tracking_uri, allow_embeddings=allow_embeddings).sync()
    console.print(
        f"{folder.name}: {counts['runs']} runs changed, {counts['points']} metric points sent.", highlight=False
    )
    _next(f"marginlab ui --workspace {workspace}")


@app.command(epilog="Example:  marginlab ui --workspace ./workspace --port 5000")
def ui(
    workspace: WorkspaceOption = HERE,
    port: Annotated[int, typer.Option(help="On 127.0.0.1.")] = 5000,
) -> None:
    """Start the MLflow UI over the workspace and print links that show the comparison. Ctrl-C ends it."""
    from marginlab.tracking import links

    root = _space(workspace).root
    argv, env = links.server(root, port)
    for name, url in links.known(root, port):
        console.print(f"{name}: {url}", highlight=False, soft_wrap=True)
    console.print("Starting the server (10 to 30 s) ...")
    os.execvpe(argv[0], argv, env)


def _space(workspace: Path) -> Workspace:
    from marginlab.workspace import Workspace

    return Workspace.at(workspace)


def _study_folder(name: str | None, workspace: Path) -> Path:
    space = _space(workspace)
    known = space.studies()
    if not known:
        raise InputError(
            f"No study has begun in {space.root}: start one with marginlab run STUDY.py, or name another --workspace."
        )
    if name is None:
        return max((space.study(n) for n in known), key=lambda p: (p / "study.json").stat().st_mtime)
    if name not in known:
        raise InputError(f"There is no study {name!r} in {space.root}; there are {', '.join(known)}.")
    return space.study(name)


def _next(what: str) -> None:
    console.print(f"[dim]Next:[/] {what}", highlight=False, soft_wrap=True)


class _bar:
    """A progress bar for a command's one long step: called with (what, done, total)."""

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self.task = self.progress.add_task(title, total=None)

    def __enter__(self) -> _bar:
        self.progress.start()
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        self.progress.update(self.task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


def main(argv: list[str] | None = None) -> None:
    """Entry point: what the user got wrong ends in a sentence and exit code 2."""
    try:
        app(args=argv, standalone_mode=True)
    except InputError as e:
        errors.print(Text.assemble(("marginlab: ", "red"), str(e)), soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
