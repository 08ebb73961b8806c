"""How long a report takes and how large it is, for a study of more than 500 runs.

    make bench ONLY=report
    PYTHONPATH=platform:. python tests/benchmarks/bench_report.py      # as JSON

The runs are not trained: their folders hold what a run's folder holds, 40 epochs, and test embeddings (1,000 images, D = 128)
of five folds, which answer as one ensemble per seed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Row, apart

from marginlab.report import write_report
from marginlab.results import Results

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.report.synthetic import EPOCHS, Synthetic, params_of, study, write_test_embeddings

SUBJECTS, VISITS, D = 250, 4, 128


def whole(folder: Path) -> int:
    """A study's folder: 2 datasets, 3 arms, 3 replicates, 5 seeds, 5 folds; the number of its runs."""
    from marginlab.study import Search

    question = study(seeds=5, folds=5, search=Search(epochs_budget=12, max_epochs=EPOCHS, replicates=3))
    test = {(d.name, a.name): [0.8] * 5 for d in question.datasets for a in question.arms}
    made = Synthetic(folder, question, test)
    label = np.repeat(np.arange(SUBJECTS), VISITS)
    months = np.tile(np.arange(VISITS) * 12.0, SUBJECTS)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((SUBJECTS, D))
    runs = 0
    for key in made.plan.searches():
        made.trials(key)
        runs += 3
        for task in made.plan.confirmations(key, params_of(key.arm, 1)):
            path = made.confirmation(task)
            points = centres[label] + 1.5 * rng.standard_normal((len(label), D))
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            write_test_embeddings(path, np.arange(len(label)), label, months, points)
            runs += 1
    made.summary()
    return runs


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "workspace" / "studies" / "demo"
        runs = whole(folder)
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            page = write_report(Results.open(folder), folder / "report")
            seconds.append(time.perf_counter() - began)
        return {"runs": runs, "seconds": seconds, "bytes": page.stat().st_size}


def rows() -> Iterator[Row]:
    found = apart(__file__)
    first, again = found["seconds"]
    megabytes = found["bytes"] / 1e6
    yield Row(f"report of {found['runs']} runs", "under 20 s", f"{first:.1f} s", first < 20)
    yield Row("the same again", "", f"{again:.1f} s", None)
    yield Row("the page", "under 10 MB", f"{megabytes:.2f} MB", megabytes < 10)


if __name__ == "__main__":
    print(json.dumps(measure()))
