"""The command ``replay``: one recorded run again, outside Ray, or where its time goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marginlab.shell import HERE, WorkspaceOption, console, say_next
from marginlab.values import InputError

if TYPE_CHECKING:
    from marginlab.data.packed import PackedDataset
    from marginlab.runs import RunFolder


def replay(
    run: Annotated[str, typer.Argument(help="A run's folder, its name, or the beginning of its id.")],
    epochs: Annotated[
        int | None, typer.Option(min=0, help="Stop after as many; by default after all that were recorded.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU where there is one.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show instead where the time goes, from a few batches, and write a trace.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The folder for the trace; by default profile/ in the run's folder.")
    ] = None,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Train one recorded run again, outside Ray, and show that the numbers are the same, or where they part.

    A run that failed is trained up to the epoch that failed, to see whether it fails again.

    Exit code 0: the run was reproduced. 1: the numbers part, or the failure did not recur. 2: there is no such run or data.
    """
    if profile:  # before torch is imported: its profiler reports every one of its own steps otherwise
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from marginlab.replay import find_data, find_run
    from marginlab.workspace import Workspace

    if out is not None and not profile:
        raise InputError("--out is where the trace of --profile goes: give both, or neither.")
    if profile and epochs is not None:
        raise InputError("--profile takes as many batches as it needs: leave out --epochs.")
    if device is not None:
        _check_device(device)
    space = Workspace.at(workspace)
    space.fetch_all()
    folder = find_run(space.root, run)
    data = find_data(space.root, folder.run.data)
    console.print(f"[bold]{folder.path.name}[/] {folder.labels}", highlight=False, soft_wrap=True)
    if profile:
        _profile(folder, data, out, device)
    else:
        _replay(folder, data, epochs, device, workspace)


def _replay(folder: RunFolder, data: PackedDataset, epochs: int | None, device: str | None, workspace: str) -> None:
    from marginlab.replay import Epoch, summary
    from marginlab.replay import replay as again
    from marginlab.runs import OBJECTIVE

    def tell(e: Epoch) -> None:
        recorded, replayed = e.recorded.get(OBJECTIVE, float("nan")), e.replayed.get(OBJECTIVE, float("nan"))
        verdict = "the same" if e.same else f"apart in {', '.join(e.apart)}"
        console.print(
            f"epoch {e.epoch}: {OBJECTIVE} recorded {recorded:.6f}, replayed {replayed:.6f}: {verdict}", highlight=False
        )

    done = again(folder, data, epochs=epochs, device=device, tell=tell)
    for line in done.failed.lines if done.failed else ():
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(summary(done), highlight=False, markup=False, soft_wrap=True)
    error = folder.path / "error.txt"
    if done.failed:
        where = "the lines above" if done.failed.lines else "the study's learning rate, loss or margins"
        say_next(f"mend {where}, then marginlab run STUDY.py --fresh --workspace {workspace}")
    elif done.recorded and not done.stopped and error.exists():
        say_next(f"read what its process left behind: {error}")
    else:
        say_next(f"marginlab replay {folder.path.name} --profile --workspace {workspace} shows where its time goes")
    if not done.same:
        raise typer.Exit(1)


def _profile(folder: RunFolder, data: PackedDataset, out: Path | None, device: str | None) -> None:
    from marginlab import profiling

    found = profiling.profile(folder, data, out=out, device=device)
    for line in profiling.sentences(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Trace: {found.trace}", highlight=False, soft_wrap=True)
    say_next("open the trace in https://ui.perfetto.dev (it stays in your browser) or in chrome://tracing")


def _check_device(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise InputError(f"There is no device {name!r} here ({str(e).splitlines()[0]}): leave out --device.") from None
