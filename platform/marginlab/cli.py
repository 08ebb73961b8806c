"""The command line. It reads, calls the library, draws, and ends by saying what to do next."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from marginlab import cli_data, cli_doctor, cli_jobs, cli_models, cli_replay
from marginlab.shell import HERE, TRACKING, WorkspaceOption, console, errors, say_next
from marginlab.values import InputError

if TYPE_CHECKING:
    from marginlab.cluster.machines import Machines
    from marginlab.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Studies of margins in metric learning: does a margin that tunes itself match the best that a search can find?",
)
StudyFile = Annotated[str, typer.Argument(help="A study file, or file.py:name for another study in it than 'study'.")]
StudyName = Annotated[str | None, typer.Argument(help="A study's name; by default the latest one of the workspace.")]
PhantomOption = Annotated[
    bool, typer.Option("--phantom", help="Its small form on synthetic images instead: the study 'phantom' of the file.")
]
Address = Annotated[
    str | None, typer.Option(help="A running Ray cluster, such as head:6379; by default Ray is started here.")
]


app.command(epilog="Example:  marginlab phantom oai --out raw/oai --subjects 60 --size 96")(cli_data.phantom)
app.command(epilog="Example:  marginlab prepare oai /data/OAI --size 280")(cli_data.prepare)
app.command(epilog="Example:  marginlab verify workspace/data/oai-0a1b2c3d4e")(cli_data.verify)


@app.command(epilog="Example:  marginlab plan studies/demo.py")
def plan(
    study: StudyFile,
    phantom: PhantomOption = False,
    workspace: WorkspaceOption = HERE,
    cpus: Annotated[int | None, typer.Option(help="Plan for this many CPUs instead of this machine's.")] = None,
    gpus: Annotated[int | None, typer.Option(help="Plan for this many GPUs instead of this machine's.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Plan for what this Ray cluster has, such as head:6379, or can grow to.")
    ] = None,
) -> None:
    """Lay out what a study will do, or has left to do, and how long it takes, without doing any of it.

    Refuses what can never be scheduled. The time is measured: two batches of each arm, or earlier runs of the study.
    """
    from marginlab.cluster.preflight import preflight
    from marginlab.counting import assumed
    from marginlab.declaration import load_study, refuse_changes
    from marginlab.estimate import estimate
    from marginlab.networks.weights import unweighted
    from marginlab.outline import outline, planned

    study = _file(study, phantom)
    loaded = load_study(study)
    space = _space(workspace)
    space.fetch_for(loaded)
    space.check_sources(loaded, without=[d.name for d in loaded.datasets if assumed(d, space)])
    there = _machines(cpus, gpus, address)
    preflight(unweighted(loaded), there)  # a plan may be made before there is anything to train with
    laid_out, folder = planned(loaded, space), space.study(loaded.name)
    refuse_changes(folder, laid_out)
    console.print(outline(laid_out, space, there, estimate(laid_out, space, there, folder)))
    say_next(f"marginlab run {study} --workspace {workspace}")


def _file(study: str, phantom: bool) -> str:
    if phantom and ":" in study:
        raise InputError("--phantom is short for FILE.py:phantom: give one of the two.")
    return f"{study}:phantom" if phantom else study


def _machines(cpus: int | None, gpus: int | None, address: str | None) -> Machines:
    from marginlab.cluster.machines import Machines

    if address is not None:
        if cpus is not None or gpus is not None:
            raise InputError(
                "--cpus and --gpus are for planning without a cluster: leave them out, or leave --address out."
            )
        from marginlab.cluster.session import machines, session

        with session(address):
            return machines()
    if gpus is None:
        import torch

        gpus = torch.cuda.device_count()
    return Machines.one(cpus or os.cpu_count() or 1, gpus)


@app.command(epilog="Example:  marginlab run studies/demo.py")
def run(
    study: StudyFile,
    phantom: PhantomOption = False,
    workspace: WorkspaceOption = HERE,
    address: Address = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs for the Ray that is started here; by default all.")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(envvar=TRACKING, help="An MLflow server; by default a database in the workspace.")
    ] = None,
    allow_embeddings: Annotated[
        bool, typer.Option(help="Send embeddings of restricted images to that server: they are biometric templates.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew: an old study of this name is moved aside, not deleted.")
    ] = False,
    study_database: Annotated[
        str | None,
        typer.Option(
            help="Keep the searches in PostgreSQL: postgresql://USER@HOST/DATABASE, its password in PGPASSWORD or ~/.pgpass. "
            "Or the whole address in MARGINLAB_STUDY_DATABASE; by default a file in the study's folder."
        ),
    ] = None,
) -> None:
    """Do a whole study: prepare, search, confirm, record, answer. Run again, it carries on where it was.

    Ctrl-C, or SIGTERM, lets the epochs in progress end and stops; twice stops at once. Nothing that was finished is lost.
    """
    from marginlab.declaration import load_study
    from marginlab.drawing import TRAINING, Watch
    from marginlab.progress import publisher
    from marginlab.report import print_answer
    from marginlab.results import Results
    from marginlab.running import run_study
    from marginlab.stopping import Stopped, gracefully
    from marginlab.watching import dashboard_line

    study = _file(study, phantom)
    loaded = load_study(study)
    space = _space(workspace)
    console.print(f"[bold]{loaded.name}[/] {loaded.question}", highlight=False)
    try:
        folder = space.study(loaded.name)
        with (
            Watch(console, folder, publisher()) as watch,
            gracefully(folder, lambda: watch.doing in TRAINING, watch.trouble),
        ):
            outcome = run_study(
                loaded,
                space,
                on_step=watch.step,
                progress=watch.progress,
                on_trouble=watch.trouble,
                on_note=watch.note,
                address=address,
                cpus=cpus,
                tracking_uri=tracking_uri,
                allow_embeddings=allow_embeddings,
                fresh=fresh,
                study_database=study_database,
            )
    except (KeyboardInterrupt, Stopped) as e:
        console.print("Stopped." if isinstance(e, Stopped) else "Interrupted. What was finished is kept.")
        say_next(
            f"marginlab run {study} --workspace {workspace} carries on; marginlab status {loaded.name} shows where it is"
        )
        raise typer.Exit(130) from None
    print_answer(console, Results.open(outcome.folder), outcome.link)
    console.print(f"\nReport: {outcome.report}", highlight=False, soft_wrap=True)
    console.print(f"Trials: {dashboard_line(outcome.folder)}", highlight=False, soft_wrap=True)
    if outcome.estimate:
        console.print(outcome.estimate, highlight=False)


@app.command(epilog="Example:  marginlab status automargin-demo --follow")
def status(
    study: StudyName = None,
    workspace: WorkspaceOption = HERE,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep looking until the study ends or stops; Ctrl-C leaves it alone.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Jobs of this cluster instead, such as http://head:8265: all, or one (JOB_OR_STUDY)."),
    ] = None,
) -> None:
    """How far a study is: per search the best so far and its trials; what is at work, the pace, what is left, what failed.

    From any terminal, while it runs and after. What failed is listed with the command that reproduces it.
    """
    if address is not None:
        cli_jobs.status(study, address, follow)
        return
    from marginlab import study_database
    from marginlab.drawing import follow as keep_looking
    from marginlab.drawing import status_view
    from marginlab.watching import dashboard_line, snapshot

    folder, space = _study_folder(study, workspace, light=True), _space(workspace)
    try:
        shot = (
            keep_looking(console, folder, lambda: space.fetch(folder.name, light=True)) if follow else snapshot(folder)
        )
    except KeyboardInterrupt:
        console.print(f"No longer looking at {folder.name}, which goes on.")
        shot = snapshot(folder)
    console.print(status_view(shot), soft_wrap=True)
    if study_database.of(folder).exists:
        console.print(f"[dim]Trials:[/] {dashboard_line(folder)}", highlight=False, soft_wrap=True)
    if shot.step == "done":
        say_next(f"marginlab compare {shot.study} --workspace {workspace}")
    elif shot.step == "stopped":
        say_next(f"marginlab run STUDY.py --workspace {workspace} carries on where it stopped")
    else:
        say_next(f"marginlab status {shot.study} --follow --workspace {workspace}")


_ON = "--address http://head:8265"
app.command(epilog=f"Example:  marginlab submit studies/demo.py {_ON} --workspace /mnt/marginlab")(cli_jobs.submit)
app.command(epilog=f"Example:  marginlab logs automargin-demo-1 {_ON} --follow")(cli_jobs.logs)
app.command(epilog=f"Example:  marginlab stop automargin-demo-1 {_ON}")(cli_jobs.stop)
app.command(epilog=f"Example:  marginlab resume automargin-demo-1 {_ON}")(cli_jobs.resume)


@app.command(epilog="Example:  marginlab compare automargin-demo")
def compare(
    study: StudyName = None,
    other: Annotated[str | None, typer.Argument(help="A second study, to stand beside the first.")] = None,
    workspace: WorkspaceOption = HERE,
    galleries: Annotated[
        bool,
        typer.Option("--galleries", help="Put images of people on the page: whoever has the page has the images."),
    ] = False,
    redeclare: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY.py", help="Answer by this study file's comparison instead; the report tells of the change."
        ),
    ] = None,
) -> None:
    """Print a study's answer and write its report again, from its run folders alone; or put two studies side by side."""
    from marginlab.report import print_answer, write_report
    from marginlab.results import Results

    folder = _study_folder(study, workspace)
    if other is not None:
        if galleries or redeclare is not None:
            raise InputError("--galleries and --redeclare are for one study: name the second one in a call of its own.")
        from marginlab.report.two import render_two

        console.print(render_two(Results.open(folder), Results.open(_study_folder(other, workspace))))
        say_next(f"marginlab compare {folder.name} --workspace {workspace} for all of the first study")
        return
    if redeclare is not None:
        _redeclare(folder, redeclare, workspace)
    results = Results.open(folder)
    print_answer(console, results)
    # Apart from `report`, which goes to MLflow as it is.
    out = folder / ("report-with-galleries" if galleries else "report")
    page = write_report(results, out, None, galleries=galleries)
    console.print(f"\nReport: {page}", highlight=False, soft_wrap=True)
    say_next(f"marginlab ui --workspace {workspace}")


def _redeclare(folder: Path, spec: str, workspace: str) -> None:
    from marginlab.declaration import load_study, redeclare
    from marginlab.lock import Held, locked

    try:
        with locked(_space(workspace).lock(folder.name)):
            changed = redeclare(folder, load_study(spec))
    except Held as e:
        raise InputError(f"The study {folder.name!r} is at work ({e}): declare anew when it has ended.") from None
    said = (
        "Declared anew; the report tells of it." if changed else f"{spec} declares what the study did: nothing changes."
    )
    console.print(said, highlight=False)


@app.command(epilog="Example:  marginlab export automargin-demo --out tables --format csv")
def export(
    out: Annotated[Path, typer.Option(help="The folder to write to; files of the same names in it are replaced.")],
    study: StudyName = None,
    format: Annotated[str, typer.Option(help="parquet or csv.")] = "parquet",
    workspace: WorkspaceOption = HERE,
) -> None:
    """Write a study's trials, runs and epochs as three files for your own analysis, finished or not.

    trials: a row per trial, a column per searched parameter. runs: a row per training. epochs: a row per run and epoch.
    """
    from marginlab.export import export as write
    from marginlab.results import Results

    written = write(Results.open(_study_folder(study, workspace)), out, format)
    for path, rows in written.items():
        console.print(f"{path}: {rows} rows", highlight=False, soft_wrap=True)
    read = f"pl.read_{format}({str(next(iter(written)))!r}{', try_parse_dates=True' if format == 'csv' else ''})"
    say_next(f'python -c "import polars as pl; print({read})"')


app.command(epilog="Example:  marginlab replay trial-0003-f0-1a2b3c4d --epochs 2")(cli_replay.replay)


@app.command(epilog="Example:  marginlab sync --tracking-uri http://mlflow.lab:5000")
def sync(
    study: StudyName = None,
    workspace: WorkspaceOption = HERE,
    tracking_uri: Annotated[
        str | None, typer.Option(envvar=TRACKING, help="An MLflow server; by default a database in the workspace.")
    ] = None,
    allow_embeddings: Annotated[
        bool, typer.Option(help="Send embeddings of restricted images to that server.")
    ] = False,
) -> None:
    """Bring MLflow up to date from a study's folder alone: after an outage, or into an empty or another store.

    A finished study's report and champions go there too.
    """
    from marginlab.tracking import Tracker, catch_up
    from marginlab.tracking.store import shown

    folder, space = _study_folder(study, workspace), _space(workspace)
    tracker = Tracker(space.root, folder, tracking_uri, allow_embeddings=allow_embeddings)
    at_work = space.at_work(folder.name)
    counts = tracker.sync(at_work=at_work)
    console.print(
        f"{folder.name}: {counts['runs']} runs changed, {counts['points']} metric points sent.", highlight=False
    )
    for sentence in [] if at_work else catch_up(tracker, space.root):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    elsewhere = f" --tracking-uri {shown(tracking_uri)}" if tracking_uri else ""
    say_next(f"marginlab ui --workspace {workspace}{elsewhere}")


@app.command(epilog="Example:  marginlab ui --workspace ./workspace --port 5000")
def ui(
    workspace: WorkspaceOption = HERE,
    port: Annotated[int, typer.Option(help="On 127.0.0.1.")] = 5000,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Print the links into this MLflow server, and start none.")
    ] = None,
) -> None:
    """Start the MLflow UI over the workspace and print links that show the point in ten seconds. Ctrl-C ends it.

    AutoMargin against fixed margins; all trials, axis by axis; one run's curves; the champions; the study with its report.
    """
    from marginlab.tracking import links

    root = _space(workspace).root
    if tracking_uri is None:
        argv, env = links.server(root, port)
    for shown in links.known(root, port, tracking_uri):
        console.print(f"[bold]{shown.study}[/]", highlight=False)
        for what, url in shown.links:
            console.print(f"  {what}:\n    {url}", highlight=False, markup=False, soft_wrap=True)
    if tracking_uri is not None:
        return
    console.print("Starting the server (10 to 30 s) ...")
    os.execvpe(argv[0], argv, env)


app.command(epilog="Example:  marginlab doctor studies/demo.py --address auto --workspace /mnt/marginlab")(
    cli_doctor.doctor
)
app.command(epilog="Example:  marginlab embed models:/automargin-demo-oai@champion /data/new --out embeddings.parquet")(
    cli_models.embed
)
app.command(epilog="Example:  marginlab match models:/automargin-demo-oai@champion query.png /data/new --top 5")(
    cli_models.match
)


def _space(workspace: str) -> Workspace:
    from marginlab.workspace import Workspace

    return Workspace.at(workspace)


def _study_folder(name: str | None, workspace: str, light: bool = False) -> Path:
    space = _space(workspace)
    known = space.studies()
    if not known:
        raise InputError(
            f"No study has begun in {space}: start one with marginlab run STUDY.py, or name another --workspace."
        )
    if name is None:
        name = max(known, key=lambda n: (space.study(n) / "study.json").stat().st_mtime)
    if name not in known:
        raise InputError(f"There is no study {name!r} in {space}; there are {', '.join(known)}.")
    space.fetch(name, light=light)
    return space.study(name)


def main(argv: list[str] | None = None) -> None:
    """Entry point: what the user got wrong ends in a sentence and exit code 2."""
    try:
        app(args=argv, standalone_mode=True)
    except InputError as e:
        errors.print(Text.assemble(("marginlab: ", "red"), str(e)), soft_wrap=True)
        sys.exit(2)
    except OSError as e:
        from marginlab.bucket import Away
        from marginlab.files import passes

        if not passes(e):
            raise
        what = (
            f"{e.strerror}. Run the same command again when it answers."
            if isinstance(e, Away)
            else f"{e.strerror}: {e.filename or 'a file could not be written'}. Make room, and run the same command again."
        )
        errors.print(Text.assemble(("marginlab: ", "red"), what), soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
