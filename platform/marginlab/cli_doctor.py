"""The command ``doctor``: what has to be right before a study starts, looked at on every machine that it will use."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from marginlab.shell import HERE, TRACKING, WorkspaceOption, console, say_next
from marginlab.values import InputError

if TYPE_CHECKING:
    from marginlab.doctor.findings import Finding
    from marginlab.study import Study
    from marginlab.workspace import Workspace

_MARKS = {"good": ("ok", "green"), "look": ("look", "yellow"), "wrong": ("mend", "red")}


def doctor(
    study: Annotated[
        str | None, typer.Argument(help="A study file: its datasets, weights and resources are looked at, too.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster that it will run on, such as head:6379; every node is looked at."),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(envvar=TRACKING, help="The MLflow server that it will use.")
    ] = None,
    study_database: Annotated[
        str | None, typer.Option(help="The PostgreSQL database that it will use: postgresql://user@host/name.")
    ] = None,
) -> None:
    """Look at everything a study needs, and say what to mend: exit code 2 where something is wrong.

    Workspace and disk, clocks, versions, GPUs, token, datasets on every node; tracking server and study database; whether the study fits.
    """
    from marginlab.doctor.findings import LOOK, WRONG
    from marginlab.workspace import Workspace

    space = Workspace.at(workspace)
    with console.status("Looking ..."):
        found = list(_findings(study, space, address, tracking_uri, study_database))
    marks, names = (max(map(len, column)) for column in (dict(_MARKS.values()), (f.what for f in found)))
    for f in found:
        mark, colour = _MARKS[f.state]
        said = f"{f.where}: {f.said}" if f.where else f.said
        line = Text.assemble((f"{mark:{marks}}", colour), f" {f.what:{names}} ", said)
        console.print(line, soft_wrap=True)  # not a table: what it says to type can be copied from any width
    wrong, look = (sum(f.state == state for f in found) for state in (WRONG, LOOK))
    if wrong:
        console.print(
            f"[red]{wrong} to mend[/]" + (f", {look} to look at" if look else "") + f" of {len(found)} looked at."
        )
        say_next("mend them from the top, then marginlab doctor again")
        raise typer.Exit(2)
    console.print(
        "[green]Nothing to mend[/]" + (f", {look} to look at" if look else "") + f" of {len(found)} looked at."
    )
    say_next(
        f"marginlab plan {study or 'STUDY.py'} --workspace {workspace}" + (f" --address {address}" if address else "")
    )


def _findings(
    spec: str | None, space: Workspace, address: str | None, tracking_uri: str | None, database: str | None
) -> Iterator[Finding]:
    from marginlab.doctor.findings import GOOD, WRONG, Finding, judge, token_file
    from marginlab.doctor.node import look
    from marginlab.study_database import VARIABLE, choose
    from marginlab.tracking import connect

    study = None
    if spec is not None:
        study, finding = _study(spec, space)
        yield finding
    packed = _packed(study, space)
    nodes: dict[str, Any] = {}
    with _marked(space.root) as mark:
        driver = look(str(space.root), mark, packed, 0)
        if address is not None:
            from marginlab.cluster import session, token  # sets the environment that Ray reads

            yield token_file(token.token_file(), os.environ.get("RAY_AUTH_MODE"))
            try:
                with session.session(address):
                    from marginlab.cluster.nodes import look_everywhere

                    nodes = look_everywhere(space.root, mark, packed)
                    machines = session.machines()
                yield Finding(
                    "cluster",
                    "",
                    GOOD,
                    f"{len(nodes)} node{'s' * (len(nodes) != 1)} at {address}; to train on there is {machines}.",
                )
                if study is not None:
                    yield _fits(study, machines)
            except InputError as e:
                yield Finding("cluster", "", WRONG, str(e))
    yield from judge(driver, nodes, _needed(study, space))
    if tracking_uri is not None:
        try:
            connect(space.root, tracking_uri)
            yield Finding("tracking", "", GOOD, "The MLflow server answers.")
        except InputError as e:
            yield Finding("tracking", "", WRONG, str(e))
    if database is not None or os.environ.get(VARIABLE):
        try:
            there = choose(space.study(study.name if study else "-"), database)
            yield Finding("study database", "", GOOD, f"{there} answers and can be written.")
        except InputError as e:
            yield Finding("study database", "", WRONG, str(e))


@contextmanager
def _marked(folder: Path) -> Iterator[str]:
    """A file in the workspace for others to see; what they write beside it goes with it."""
    from marginlab import bucket
    from marginlab.doctor.node import MARK
    from marginlab.files import write_text

    mark = f"{MARK}-{uuid.uuid4().hex[:12]}"
    with suppress(OSError):  # judged below
        write_text(folder / mark, mark, patient=False)
    try:
        yield mark
    finally:
        for path in folder.glob(f"{mark}*"):
            with suppress(OSError):
                path.unlink()
                bucket.remove(path)


def _study(spec: str, space: Workspace) -> tuple[Study | None, Finding]:
    from marginlab.declaration import load_study
    from marginlab.doctor.findings import GOOD, WRONG, Finding
    from marginlab.networks.weights import files_of

    try:
        study = load_study(spec)
        space.fetch_for(study)
        space.check_sources(study)
    except InputError as e:
        return None, Finding("study", "", WRONG, str(e))
    absent = sorted(f for f in files_of(study.arms) if not Path(f).expanduser().is_file())
    if absent:
        return study, Finding("study", "", WRONG, f"These weights are not here: {', '.join(absent)}. Put them there.")
    return study, Finding("study", "", GOOD, f"{study.name}: it can be read, and what it needs is here.")


def _packed(study: Study | None, space: Workspace) -> dict[str, str]:
    if study is None:
        return {}
    return {d.name: str(p) for d in study.datasets if (p := space.packed(d)).exists()}


def _fits(study: Study, machines: Any) -> Finding:
    from marginlab.cluster.preflight import preflight
    from marginlab.doctor.findings import GOOD, WRONG, Finding

    try:
        preflight(study, machines)
        return Finding("resources", "", GOOD, "The study fits: marginlab plan shows how.")
    except InputError as e:
        return Finding("resources", "", WRONG, str(e))


def _needed(study: Study | None, space: Workspace) -> float:
    """Bytes that the whole study writes; 0 where nothing is known."""
    if study is None:
        return 0.0
    from marginlab.counting import counts
    from marginlab.disk import disk
    from marginlab.outline import planned

    with suppress(InputError, OSError):
        return disk(planned(study, space), {d.name: counts(d, space) for d in study.datasets}).total
    return 0.0
