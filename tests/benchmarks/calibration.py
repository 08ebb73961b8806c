"""How often the comparison errs, and writes docs/calibration.md: usual studies, small ones, and ugly ones.

PYTHONPATH=platform:. python tests/benchmarks/calibration.py          # about three minutes on one core
PYTHONPATH=platform:. python tests/benchmarks/calibration.py 500      # of so many studies each
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from marginlab import inference
from marginlab.reach import Parts, needed
from tests.simulated import AT_ONCE, MARGIN, Scenario, decide, studies

FILE = Path(__file__).parents[2] / "docs" / "calibration.md"
STUDIES = 2000
MET = (0.037, 0.063)
ONE = Scenario(replicates=1)
STEADY = Scenario(replicates=1, config=0.0, fold=0.0, taste=0.0, subject=0.02, query=0.05)
ALIKE = replace(STEADY, replicates=3, config=0.002, fold=0.001, taste=0.01)
NOTHING = replace(ONE, config=0.0, fold=0.0, taste=0.0, subject=0.0)
SCENARIOS = {
    "usual": Scenario(),
    "usual, 5 searches": Scenario(replicates=5),
    "usual, 1 search, for the configurations found": ONE,
    "5 searches, 10 seeds": Scenario(replicates=5, seeds=10),
    "1 search, 10 seeds": replace(ONE, seeds=10),
    "3 seeds": Scenario(seeds=3),
    "1 search, 3 seeds": replace(ONE, seeds=3),
    "40 subjects": Scenario(subjects=40),
    "1 search, 40 subjects": replace(ONE, subjects=40),
    "1,000 subjects": Scenario(subjects=1000, queries=1),
    "one fold": Scenario(folds=1),
    "searches differ much": Scenario(config=0.03),
    "searches find the same": Scenario(config=0.0, fold=0.0, taste=0.0),
    "single trainings vary and nothing else": Scenario(
        config=0.0, fold=0.0, taste=0.0, subject=0.0, seed=0.0, query=0.0
    ),
    "the same with 1 search": replace(NOTHING, seed=0.0, query=0.0),
    "1 search, queries vary at random and nothing else": replace(NOTHING, seed=0.0, noise=0.0),
    "1 search, subjects vary and nothing else": replace(NOTHING, seed=0.0, noise=0.0, query=0.0, subject=0.05),
    "heavy tails (t, 3 degrees of freedom)": Scenario(heavy=3.0),
    "skewed subjects and queries": Scenario(skewed=True),
    "one subject has a third of all queries": Scenario(uneven=True),
    "all three, 40 subjects": Scenario(heavy=3.0, skewed=True, uneven=True, subjects=40),
    "2 searches": Scenario(replicates=2),
    "2 searches that differ much": Scenario(replicates=2, config=0.03),
    "2 seeds": Scenario(seeds=2),
    "1 search, 2 seeds": replace(ONE, seeds=2),
}
HEAD = """# How often the answer is wrong

The verdicts of `marginlab compare` follow from a 95% interval (`marginlab/inference.py` has the formulas). This page measures how
often it leaves out the truth, on simulated studies of which the truth is known: every trial's value is its configuration's plus the
noise of its training; each search's best trial wins; the winners are trained on fresh seeds and folds; a seed's folds answer as
one; the functions that answer a real study decide. Both arms draw from the same distributions. `tests/simulated.py` has the
simulation, with the sizes of all effects; `tests/test_calibration.py` repeats its main cases at every test.

What is nominal: the interval leaves out the truth in 5% of studies. So an arm that is no different is called *better* in 2.5% of
studies and *worse* in 2.5%, and one that is worse by exactly the margin is said to *match* in 2.5%: that is the column *too high*,
whatever the true difference. *Met* is 3.7% to 6.3%, within which 1,000 studies of a true 5% fall 95 times in 100.
*Seeds alone* is what a t interval over seeds would do, whose subjects and searches are taken as given.
"""
TAIL = """
## Read this before you trust an interval

- **One search per arm**: the interval holds for the configurations that were found. Read as a statement on the arms it is wrong as
  often as the table says under *read as a statement on the arms*. Reports say so.
- **Two searches, or two seeds**: one degree of freedom. Where the searches differ much the interval errs too often.
- **Below 5%**: where single trainings vary and nothing else does, searches, seeds and their noise cannot be told apart with so few,
  and the interval is too wide rather than too narrow.
- **Training subjects**: all seeds share their folds. What other training subjects would change is in the interval only in so far
  as it changes from search to search.
- **Single models** are never pooled as if independent. The cross-check beside each answer (Nadeau and Bengio) has no subjects in it
  and assumes a share of overlap; it is no second opinion on the searches. It is not simulated here.
"""


def measure(c: Scenario, n: int, seed: int) -> tuple[float, float, float, float, float]:
    """Shares of studies: the interval missed, lay too high, too low; missed zero; a t interval over seeds alone missed."""
    found = decide(c, n, seed, draws=0)
    i, truth = found.interval, found.truth
    rng, alone = np.random.default_rng(seed), []
    for begin in range(0, n, AT_ONCE):
        d, known = studies(c, min(AT_ONCE, n - begin), rng)
        x = d.mean((1, 3))
        edge = stats.t.ppf(0.975, c.seeds - 1) * x.std(1, ddof=1) / c.seeds**0.5
        alone.append(np.abs(x.mean(1) - known) > edge)
    high, low = float(np.mean(i.low > truth)), float(np.mean(i.high < truth))
    zero = float(np.mean((i.low > 0) | (i.high < 0)))
    return high + low, high, low, zero, float(np.concatenate(alone).mean())


def percent(x: float) -> str:
    return f"{100 * x:.1f}"


def errors(n: int) -> list[str]:
    lines = [
        "| study | searches x seeds x folds | subjects | missed, % | too high, % | too low, % | | seeds alone, % |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for k, (name, c) in enumerate(SCENARIOS.items()):
        missed, high, low, zero, alone = measure(c, n, 100 + k)
        met = "met" if MET[0] <= missed <= MET[1] else "**too often**" if missed > MET[1] else "**too rarely**"
        design = f"{c.replicates} x {c.seeds} x {c.folds}"
        shown = map(percent, (missed, high, low))
        lines.append(f"| {name} | {design} | {c.subjects} | {' | '.join(shown)} | {met} | {percent(alone)} |")
        print(lines[-1], flush=True)
        if c is ONE:
            row = f"| the same, read as a statement on the arms | {design} | {c.subjects} | {percent(zero)} | | | **too often** | |"
            lines.append(row)
    found = decide(Scenario(), n, 99, draws=inference.DRAWS)
    row = f"| usual, {inference.DRAWS:,} draws instead of their limit | 3 x 5 x 5 | 200 | {percent(found.missed())} | | | "
    lines.append(row + ("met |" if MET[0] <= found.missed() <= MET[1] else "**not met** |") + " |")
    return lines


def power(n: int) -> list[str]:
    lines = [
        "| study | true difference | margin | seeds named | decided, % | with two fewer, % |",
        "|---|---|---|---|---|---|",
    ]
    cases = [
        ("1 search, little but training noise", STEADY, 0.0),
        ("the same", STEADY, 0.005),
        ("3 searches that find nearly the same", ALIKE, 0.0),
        ("the same", ALIKE, 0.006),
    ]
    for name, c, difference in cases:
        d, _ = studies(c, 1000, np.random.default_rng(7))
        s = inference.spread(inference.by_subject(d, c.owners()))
        parts = Parts(
            float(s.searches.mean()), float(s.seeds.mean()), float(s.subjects.mean()), s.units, float(s.noise.mean())
        )
        seeds = needed(parts, difference + MARGIN)
        if seeds is None:
            lines.append(f"| {name} | {difference:g} | {MARGIN:g} | none would do | | |")
            continue
        both = [
            decide(replace(c, seeds=k, difference=difference), n, 8, draws=0).said("better", "matches")
            for k in (seeds, seeds - 2)
        ]
        lines.append(f"| {name} | {difference:g} | {MARGIN:g} | {seeds} | {percent(both[0])} | {percent(both[1])} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES
    command = "PYTHONPATH=platform:. python tests/benchmarks/calibration.py" + (f" {n}" if n != STUDIES else "")
    page = [HEAD, f"Written by `{command}`; {n:,} studies in each row.", "", *errors(n), "", "## Stated power", ""]
    page += [
        "The number of seeds that a report names decides with 80% power, were the variance what it is taken to be:",
        "",
    ]
    FILE.write_text("\n".join([*page, *power(n), TAIL]))


if __name__ == "__main__":
    main()
