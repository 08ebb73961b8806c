"""What the platform takes beside training: of a trial, of the driver, of sixteen trials at once, of a worker group's start.

    make bench ONLY=overhead
    PYTHONPATH=platform:. python tests/benchmarks/bench_overhead.py inline|thousand|makespan|nested      # one part, as JSON

Trials of the first part train (the smallest network on the smallest phantom); all others are simulated: they replay curves that
are made up here. What is measured stands in overhead_parts.py.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from typing import Any

from measuring import Row, apart, ratios, times

NOTE = """
A trial's platform time is what lies between its end and the end of the trial before it, less the seconds that its own training says
it took. Both sides of the comparison train the same configurations' worth of epochs in one reused process, write a checkpoint after each
epoch, keep their searches in SQLite and log to MLflow in SQLite (ours from a process beside the driver); they take turns of 50 trials.
The driver's time and memory are those of the process that gives `marginlab run`: Tune, without the registrar and without the process
that keeps MLflow up to date. Their times stand below it.
The ideal makespan deals the same trials, in the order in which they began, to 16 workers that are ready when the real ones were.
The start of a worker group is counted to the first line that a worker writes.
"""


def rows() -> Iterator[Row]:
    found = apart(__file__, "inline")
    ours, theirs, slope, limit = (found[k] for k in ("ours", "theirs", "slope", "limit"))
    mean = statistics.median(ours)
    yield Row(
        f"platform time of an inline trial of {found['epochs']} epochs, beyond `fit`, {found['trials']} trials",
        f"at most {limit:.2f} s (0.15 s + 25 ms per epoch)",
        f"{mean:.2f} s",
        mean <= limit,
    )
    yield Row("its slope over them", "under 0.1 ms per trial", f"{1e3 * slope:.2f} ms", slope < 1e-4)
    ratio = ratios(theirs, ours)
    yield Row(
        "the same with Tune, OptunaSearch with RDB storage and MLflowLoggerCallback",
        "slower",
        f"{times(ratio)}; {statistics.median(theirs):.2f} s",
        ratio[0] > 1,
    )
    yield from thousand(apart(__file__, "thousand"))
    found = apart(__file__, "makespan")
    yield Row(
        f"{found['trials']} simulated trials of {found['seconds']:.0f} s on 2 nodes x 8 logical CPUs, against the ideal makespan",
        "at least 0.95 of it",
        f"{found['share']:.3f} of it; {found['took']:.0f} s",
        found["share"] >= 0.95,
    )
    found = apart(__file__, "nested")
    more = [a - b for a, b in zip(found["ours"], found["bare"], strict=True)]
    yield Row(
        f"start of a nested run of two workers, beyond a bare TorchTrainer's, median of {len(more)}",
        "at most 4 s",
        f"{statistics.median(more):+.1f} s ({min(more):+.1f} to {max(more):+.1f}); bare {statistics.median(found['bare']):.1f} s",
        statistics.median(more) <= 4,
    )


def thousand(found: dict[str, Any]) -> Iterator[Row]:
    cpu, rss = 1e3 * found["driver_s"] / found["results"], found["rss_mb"]
    quarter = max(1, len(rss) // 4)
    early, late = statistics.median(rss[quarter : 2 * quarter]), statistics.median(rss[-quarter:])
    what = f"a search of {found['trials']} simulated trials, {found['results']} results"
    yield Row(f"{what}: CPU time of the driver per result", "under 20 ms", f"{cpu:.1f} ms", cpu < 20)
    yield Row("its memory, at most", "under 600 MB", f"{max(rss):.0f} MB", max(rss) < 600)
    yield Row("its growth, second to last quarter", "under 30 MB", f"{late - early:+.0f} MB", late - early < 30)
    yield Row(
        "the whole search",
        "",
        f"{found['wall_s']:.0f} s, {1e3 * found['wall_s'] / found['trials']:.0f} ms a trial",
        None,
    )
    for whom in ("registrar", "tracking"):
        per_result = found[f"{whom}_s"] / found["results"]
        yield Row(f"CPU time of the {whom} process per result", "", f"{1e3 * per_result:.1f} ms", None)


if __name__ == "__main__":
    import overhead_parts

    print(json.dumps(getattr(overhead_parts, sys.argv[1])()))
