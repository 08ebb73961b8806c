"""The commands for studies on a cluster: ``submit``, ``logs``, ``stop``, ``resume``, and ``status --address``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.markup import escape

from marginlab.shell import HERE, WorkspaceOption, console, say_next
from marginlab.values import InputError

if TYPE_CHECKING:
    from marginlab.cluster.jobs import Job, Jobs, Record
    from marginlab.study import Study

AddressOption = Annotated[
    str, typer.Option(help="The cluster's dashboard, such as http://head:8265, or the end of a tunnel to it.")
]
JobName = Annotated[str, typer.Argument(metavar="JOB_OR_STUDY", help="A job's id, or a study's name for its latest.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not follow the job.")]


def submit(
    study: Annotated[str, typer.Argument(help="A study file, or file.py:name for another study in it than 'study'.")],
    address: AddressOption,
    workspace: Annotated[
        str,
        typer.Option(
            "--workspace",
            "-w",
            help="The folder for all output, as the nodes see it: shared, absolute; or s3://BUCKET/PREFIX.",
        ),
    ],
    phantom: Annotated[
        bool,
        typer.Option("--phantom", help="Its small form on synthetic images instead: the study 'phantom' of the file."),
    ] = False,
    tracking_uri: Annotated[
        str | None, typer.Option(help="An MLflow server; by default a database in the workspace.")
    ] = None,
    study_database: Annotated[
        str | None, typer.Option(help="Keep the searches in PostgreSQL: postgresql://USER@HOST/DATABASE.")
    ] = None,
    allow_embeddings: Annotated[
        bool, typer.Option(help="Send embeddings of restricted images to that server: they are biometric templates.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew: an old study of this name is moved aside, not deleted.")
    ] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Send this variable of this shell along, in the open; may be repeated."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Send these files along, too, such as 'configs/*.json'; may be repeated."),
    ] = None,
    python: Annotated[str, typer.Option(help="The Python of the nodes.")] = "python",
    no_wait: NoWait = False,
) -> None:
    """Do a whole study on a Ray cluster: send the code, begin the job, follow it. It does not need this machine any more.

    Sent are the Python files of the study's repository and what --include names, and MarginLab where it runs from a checkout.
    Passwords and tokens are never sent: the job reads them from WORKSPACE/secrets.env (lines NAME=value, mode
    0600), or ~/.config/marginlab/secrets.env of the head where the workspace is in object storage.

    Ctrl-C ends looking, not the job. Submitted again, a study carries on where it was.
    """
    from marginlab import bucket, credentials
    from marginlab.cluster.jobs import Jobs, Record
    from marginlab.declaration import load_study
    from marginlab.package import collect
    from marginlab.running import git_commit

    name, _, attribute = study.partition(":")
    if phantom and attribute:
        raise InputError("--phantom is short for FILE.py:phantom: give one of the two.")
    attribute = "phantom" if phantom else attribute
    place = bucket.shown(bucket.folder_of(workspace)) if bucket.named(workspace) else workspace
    if not bucket.named(workspace) and not Path(workspace).is_absolute():
        raise InputError(
            f"--workspace {workspace}: give the absolute path of a folder that all nodes of the cluster see, or s3://BUCKET/PREFIX."
        )
    loaded = load_study(f"{name}:{attribute}" if attribute else name)
    _check_paths(loaded)
    environment = credentials.passed(env or [], os.environ, place)
    package = collect(Path(name), include or [])
    arguments = [f"{package.study}:{attribute}" if attribute else package.study, "--workspace", place]
    for option, uri, instead in (
        ("--tracking-uri", tracking_uri, "MLFLOW_TRACKING_USERNAME=... and MLFLOW_TRACKING_PASSWORD=..."),
        ("--study-database", study_database, "PGPASSWORD=..."),
    ):
        if uri is not None:
            credentials.refuse_login(uri, option, instead, place)
            arguments += [option, uri]
    arguments += ["--allow-embeddings"] if allow_embeddings else []
    jobs = Jobs(address)
    with tempfile.TemporaryDirectory(prefix="marginlab-") as temporary:
        digest = package.write(Path(temporary), git_commit())
        record = Record(loaded.name, place, tuple(arguments), digest, python)
        extra = ("--fresh",) if fresh else ()
        job = jobs.submit(record, environment, extra=extra, package=Path(temporary))
    own = "" if package.brings_marginlab else "; MarginLab is that of the nodes"
    console.print(f"[bold]{loaded.name}[/] {escape(loaded.question)}", highlight=False)
    console.print(
        f"Sent {len(package.files)} files, {package.size / 2**20:.1f} MB, from {package.root}{own}.",
        highlight=False,
        soft_wrap=True,
    )
    _begun(jobs, job, no_wait)


def _check_paths(study: Study) -> None:
    """Refuse what is named relative to a folder of this machine: a job begins in another, and images are not sent."""
    from marginlab.networks.weights import files_of

    named = [("the weights", file) for file in sorted(files_of(study.arms))]
    for d in study.datasets:
        named += [(f"the {kind} of dataset {d.name}", p) for kind in ("root", "curves") if (p := getattr(d, kind))]
    for what, path in named:
        if not Path(path).is_absolute() and not path.startswith("~"):
            raise InputError(
                f"{study.name}: {what}, {path}, is relative, and a job begins in another folder. Give the absolute path that "
                "all nodes of the cluster see it under."
            )


def resume(
    job: JobName,
    address: AddressOption,
    no_wait: NoWait = False,
) -> None:
    """Submit a study again as it was submitted before, from wherever you are: it carries on where it was.

    The code is that of the job, kept in its workspace. With other code or other arguments, submit it anew.
    """
    from marginlab.cluster.jobs import SETTINGS, Jobs

    jobs = Jobs(address)
    before = jobs.find(job)
    if before.record is None:
        raise InputError(
            f"{before.id} was not submitted by marginlab submit, so it cannot be submitted again from here: repeat your command."
        )
    given = {k: v for k, v in before.environment.items() if k not in SETTINGS}
    _begun(jobs, jobs.submit(before.record, given, package=_kept(before.record)), no_wait)


def _kept(record: Record) -> Path | None:
    """The code of a job whose workspace is in object storage, which is fetched here to be sent again; nodes see any other."""
    from marginlab import bucket
    from marginlab.package import kept_at
    from marginlab.workspace import Workspace

    if not bucket.named(record.workspace) or not record.package:
        return None
    folder = kept_at(Workspace.at(record.workspace).root, record.package)
    bucket.fetch(folder)
    return folder


def _begun(jobs: Jobs, job: Job, no_wait: bool) -> None:
    console.print(f"The job is {job.id}.", highlight=False)
    if no_wait:
        say_next(f"marginlab status {job.id} --follow --address {jobs.address}")
        return
    _follow(jobs, job, log=True)


def _follow(jobs: Jobs, job: Job, *, log: bool, table: bool = True) -> NoReturn:
    from marginlab.following import follow

    try:
        job = follow(console, jobs, job, log, table)
    except KeyboardInterrupt:
        console.print(f"No longer looking at {job.id}, which goes on.", highlight=False)
        say_next(f"marginlab status {job.id} --follow --address {jobs.address}")
        raise typer.Exit(0) from None
    raise typer.Exit(_ended(jobs, job))


def _ended(jobs: Jobs, job: Job) -> int:
    from marginlab.following import ended

    if job.state == "SUCCEEDED":
        where = f" --workspace {job.record.workspace}" if job.record else ""
        console.print(f"{job.id} is done.", highlight=False)
        say_next(f"marginlab compare {job.study}{where}, where that folder is seen")
        return 0
    if job.state == "STOPPED":
        console.print(f"{job.id} was stopped. What was finished is kept.", highlight=False)
    else:
        console.print(f"[red]{job.id} failed[/]: {escape(ended(job))}.", highlight=False, soft_wrap=True)
    again = f"marginlab resume {job.id} --address {jobs.address}" if job.record else "the same ray job submit again"
    say_next(f"{again} carries on where it was")
    return 130 if job.state == "STOPPED" else 1


def logs(
    address: AddressOption,
    job: Annotated[
        str | None,
        typer.Argument(metavar="JOB_OR_STUDY", help="A job's id, or a study's name; by default the cluster's latest."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends; Ctrl-C leaves it alone.")] = False,
) -> None:
    """What a job has printed: its steps, troubles, and in the end the answer."""
    from marginlab.cluster.jobs import Jobs

    jobs = Jobs(address)
    found = jobs.find(job)
    if follow and not found.over:
        _follow(jobs, found, log=True, table=False)
    console.print(jobs.log(found.id), end="", highlight=False, markup=False, soft_wrap=True)


def stop(
    study: JobName,
    address: Annotated[str | None, typer.Option(help="The cluster's dashboard, such as http://head:8265.")] = None,
    workspace: WorkspaceOption = HERE,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for the epochs in progress; they are trained again later.")
    ] = False,
) -> None:
    """Stop a study well: the epochs in progress end first, and the next start carries on from there.

    With --address a job of a cluster, from anywhere; without, a study that somebody runs in this workspace.
    """
    if address is None:
        if now:
            raise InputError(
                "--now is for jobs (--address): a study that runs here stops at once on its second Ctrl-C."
            )
        _stop_here(study, workspace)
        return
    from marginlab.cluster.jobs import Jobs

    jobs = Jobs(address)
    job = jobs.find(study)
    if job.over:
        raise InputError(f"{job.id} is over already ({job.state.lower()}): there is nothing to stop.")
    jobs.stop(job, now)
    how = " at once" if now else "; the epochs in progress end first"
    if job.state == "PENDING":
        how = ". It has not begun: it ends when it does, or leaves the queue by itself after 15 minutes"
    console.print(f"{job.id}: asked to stop{how}.", highlight=False, soft_wrap=True)
    say_next(f"marginlab status {job.id} --follow --address {jobs.address}")


def _stop_here(study: str, workspace: str) -> None:
    from marginlab import stopping
    from marginlab.workspace import Workspace

    space = Workspace.at(workspace)
    folder = space.study(study)
    if not space.at_work(study):
        raise InputError(f"Nobody is at work on a study {study!r} in {space}. A job is stopped with --address.")
    folder.mkdir(parents=True, exist_ok=True)
    stopping.ask(folder)
    console.print(f"{study}: asked to stop; the epochs in progress end first.", highlight=False)
    say_next(f"marginlab status {study} --follow --workspace {workspace}")


def status(name: str | None, address: str, follow: bool) -> None:
    """``marginlab status --address``: the jobs of the cluster, or one of them."""
    from marginlab.cluster.jobs import Jobs
    from marginlab.following import job_view, jobs_view

    jobs = Jobs(address)
    if name is None and not follow:
        there = jobs.all()
        if not there:
            console.print(f"{jobs.address} knows no job of a study.", highlight=False)
            say_next(f"marginlab submit STUDY.py --address {jobs.address} --workspace FOLDER")
            return
        console.print(jobs_view(there, jobs.progress), soft_wrap=True)
        say_next(f"marginlab status {there[-1].id} --address {jobs.address}")
        return
    job = jobs.find(name)
    if follow and not job.over:
        from marginlab.following import follow as keep_looking

        try:
            job = keep_looking(console, jobs, job, log=False)
        except KeyboardInterrupt:
            console.print(f"No longer looking at {job.id}, which goes on.", highlight=False)
            job = jobs.look(job.id)
    console.print(job_view(job, jobs.progress(job)), soft_wrap=True)
    if job.over:
        code = _ended(jobs, job)
        raise typer.Exit(code if follow else 0)
    say_next(f"marginlab status {job.id} --follow --address {jobs.address}")
