"""Where the time of a recorded run goes: some of its batches and an evaluation under PyTorch's profiler.

``fit`` itself trains; its clock says when a batch and a step begin (``clock.listening``). Only here does each step become a
named range of the trace: naming them always would cost about 10 microseconds each, also when nobody looks.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerAction, ProfilerActivity, record_function

from marginlab.clock import STEPS, Clock, listening
from marginlab.data.packed import PackedDataset
from marginlab.data.sampler import batches
from marginlab.data.subset import Data
from marginlab.files import aside
from marginlab.retrieval import validation_scores
from marginlab.runs import RunFolder
from marginlab.training import Run, State, embed, fit
from marginlab.values import InputError

SKIP = 2  # batches: they make kernels choose their algorithms and the optimiser its state
RECORD = 20  # batches at most
PATIENCE_S = 30.0  # of recording; after it the batch in progress is the last
OPERATORS = 5


@dataclass(frozen=True)
class Operator:
    """One of PyTorch's operators, without those it calls. On a GPU the time is that of its kernels."""

    name: str
    share: float  # of the time of all operators
    calls: float  # per batch; those of an evaluation are counted in


@dataclass(frozen=True)
class Profile:
    device: str
    batch_size: int
    recorded: int  # batches
    per_epoch: int  # batches
    steps: dict[str, float]  # seconds of an epoch by step, the longest first
    operators: list[Operator]  # the most expensive first
    trace: Path
    failed: str = ""  # how the run failed after what was recorded


class _Enough(Exception):
    """Ends ``fit`` in the middle of an epoch."""


def profile(folder: RunFolder, data: PackedDataset, *, out: Path | None = None, device: str | None = None) -> Profile:
    """Train the run from its seed and record the batches after the first two, then write a Chrome trace.

    Args:
        out: the folder for ``trace.json``; by default the run folder's ``profile``.
        device: by default a GPU where there is one.

    Raises:
        InputError: the run fails before there is anything to show.
    """
    out = out or folder.path / "profile"
    for part in (out, *out.parents):
        if part.exists() and not part.is_dir():
            raise InputError(f"{part} is a file: name a folder for the trace.")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if where.type == "cuda" else [])
    torch.set_num_threads(1)  # as in a worker
    fold = data.fold(folder.run.fold)
    with torch.profiler.profile(activities=activities, schedule=_schedule) as profiler:
        listener = _Listener(profiler)
        with listening(listener):
            failed = _train(folder.run, fold, listener, where)
    if not listener.recorded:
        raise InputError(
            f"{folder.path.name} failed before its batch {SKIP + 1} ended ({failed}): there is nothing to profile, replay it "
            "without --profile."
        )
    trace = out / "trace.json"
    with aside(trace) as temporary:
        profiler.export_chrome_trace(str(temporary))
    t = folder.run.training
    per_epoch = len(
        batches(fold.train.label, seed=folder.run.seed, epoch=1, batch_size=t.batch_size, per_identity=t.per_identity)
    )
    steps = {
        name: seconds / listener.counts[name] * (1 if name == "evaluation" else per_epoch)
        for name, seconds in listener.seconds.items()
        if listener.counts[name]
    }
    return Profile(
        device=str(where),
        batch_size=t.batch_size,
        recorded=listener.recorded,
        per_epoch=per_epoch,
        steps=dict(sorted(steps.items(), key=lambda s: -s[1])),
        operators=_operators(profiler, listener.recorded, where),
        trace=trace,
        failed=failed,
    )


def _schedule(step: int) -> ProfilerAction:
    """Step 0 is what comes before the first batch. The profiler warms up in the last batch that is skipped."""
    if step < SKIP:
        return ProfilerAction.NONE
    return ProfilerAction.WARMUP if step == SKIP else ProfilerAction.RECORD


class _Listener:
    """Turns the clock's steps into ranges of the trace, counts batches and adds up the seconds of what is recorded."""

    def __init__(self, profiler: torch.profiler.profile) -> None:
        self.profiler = profiler
        self.batch, self.began = 0, 0.0
        self.clock: Clock | None = None
        self.state: State | None = None
        self.seconds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()  # of steps

    @property
    def recorded(self) -> int:
        return self.counts["backward"]

    @contextmanager
    def __call__(self, clock: Clock, name: str) -> Iterator[None]:
        self.clock = clock
        if name == STEPS[0]:
            self._next_batch(clock)
        with record_function(name):
            yield
        if self.batch > SKIP:
            self.counts[name] += 1

    def _next_batch(self, clock: Clock) -> None:
        if self.recorded and (self.recorded == RECORD or time.perf_counter() - self.began > PATIENCE_S):
            raise _Enough
        self.batch += 1
        self.profiler.step()
        if self.batch == SKIP + 1:
            clock.seconds()  # of what is not recorded
            self.began = time.perf_counter()

    def report(self, epoch: int, metrics: dict[str, float], state: State) -> bool:
        self.state = state
        if self.batch > SKIP:
            self.add({k.removeprefix("time/").removesuffix("_s"): v for k, v in metrics.items()})
        return True

    def add(self, seconds: dict[str, float]) -> None:
        self.seconds.update({k: v for k, v in seconds.items() if k in STEPS})


def _train(run: Run, data: Data, listener: _Listener, device: torch.device) -> str:
    """Batches until there are enough, over as many epochs as that takes, and an evaluation if none came between them.

    Returns:
        How the run failed, if it did.
    """
    long = dataclasses.replace(run, training=dataclasses.replace(run.training, epochs=SKIP + RECORD))
    failed = ""
    try:
        fit(long, data, listener.report, device=device)
    except _Enough:
        pass
    except Exception as e:  # a user's loss may raise anything; what was recorded before it is as good
        failed = f"{type(e).__name__}: {e}"
    if listener.clock is None or listener.state is None:
        return failed
    if not failed and not listener.counts["evaluation"]:
        with listener.clock.step("evaluation"):
            network, subset = listener.state.network, data.validation
            validation_scores(embed(network, subset, run.training, data.mean, data.std, device), subset)
    listener.add(listener.clock.seconds())
    return failed


def _operators(profiler: torch.profiler.profile, recorded: int, device: torch.device) -> list[Operator]:
    spent = {}
    for event in profiler.key_averages():
        # The kernels of a GPU are listed beside the operators that launched them, and so are the named ranges.
        if event.device_type.name == "CPU" and not event.is_user_annotation:
            seconds = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
            spent[event.key] = (seconds, event.count)
    total = sum(seconds for seconds, _ in spent.values()) or 1.0
    most = sorted(spent.items(), key=lambda item: -item[1][0])[:OPERATORS]
    return [Operator(name, seconds / total, count / recorded) for name, (seconds, count) in most]


def sentences(profile: Profile) -> list[str]:
    """What a profile says, in lines for a person."""
    p, epoch = profile, sum(profile.steps.values())
    training = epoch - p.steps.get("evaluation", 0.0)
    shares = [(name, seconds / epoch) for name, seconds in p.steps.items()]
    most = " and ".join(f"{name} ({share:.0%})" for name, share in shares[:2])
    evaluated = " and an evaluation" if "evaluation" in p.steps else ""
    lines = [
        f"{p.recorded} batches of {p.batch_size} images were recorded on {p.device}, after {SKIP} that were not: "
        f"{1000 * training / p.per_epoch:.0f} ms a batch, {p.per_epoch * p.batch_size / training:.0f} images/s.",
        f"An epoch of {p.per_epoch} batches{evaluated} takes about {epoch:.1f} s, most of it in {most}:",
        *(f"  {name:<11}{seconds:8.3f} s {seconds / epoch:5.0%}" for name, seconds in p.steps.items()),
        "The most expensive operators, without what they call, by their share of all operators' time:",
        *(f"  {o.name:<44}{o.share:5.0%}, {o.calls:.0f} calls a batch" for o in p.operators),
    ]
    return [*lines, f"After that the run failed: {p.failed}"] if p.failed else lines
