"""What a study cannot decide, and why. Said by the program, so that nobody has to remember to."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from marginlab.compare import Answer
from marginlab.data.eyepacs import EyePACSByImage
from marginlab.data.readers import READERS
from marginlab.report.words import PHANTOM, SIMULATED, count, signed
from marginlab.results import Results

FEW_SEEDS = 5  # as many as the published tables have


def limits(results: Results, answers: list[Answer], searches: pl.DataFrame) -> list[str]:
    """Sentences; ``searches`` is the frame of ``tables.searches``."""
    study = results.study
    phantoms = [d.name for d in study.datasets if results.phantom(d.name)]
    simulated = [d.name for d in study.datasets if results.simulated(d.name)]
    out = []
    if simulated:
        out.append(
            f"{', '.join(simulated)}: {SIMULATED}. They show what searches spend, no more than what was recorded about networks, and "
            "have no test figures."
        )
    if phantoms:
        out.append(f"{', '.join(phantoms)}: {PHANTOM}. They show that the program works, not that a method does.")
    leaking = [d.name for d in study.datasets if isinstance(d.reader or READERS.get(d.name), EyePACSByImage)]
    if leaking:
        out.append(
            f"{', '.join(leaking)}: the split is by image, as published, and leaks: most who are tested on were trained on with their "
            "other eye. Compare with what was published for it, and conclude nothing about new patients."
        )
    return [*out, *_contrast(results), *_seeds(results, answers), *_searches(results, searches), *_training(results)]


def _contrast(results: Results) -> Iterator[str]:
    contrast = results.study.comparison.contrast
    if contrast is None:
        yield "The study declared no contrast: its tables describe what happened, and answer no question."
    elif len(results.study.arms) > 2:
        yield f"Only {contrast[0]} against {contrast[1]} was declared beforehand: every other difference here is a hint, not a finding."


def _seeds(results: Results, answers: list[Answer]) -> Iterator[str]:
    planned = results.study.confirmation.seeds
    if planned < FEW_SEEDS:
        fewest = min([a.difference.n for a in answers], default=planned)
        said = "One seed has no error bar" if fewest == 1 else f"Intervals rest on {count(fewest, 'seed')}"
        yield f"{said}: a spread estimated from so few is itself uncertain, and small differences stay out of reach."
    if results.study.confirmation.folds == 1:
        yield (
            "Every seed trained on one and the same fold: seeds vary in initialisation and batches alone, "
            "so how much the choice of training subjects matters is not in the error bars."
        )
    if not all("subjects" in a.difference.covers for a in answers if a.difference.low is not None) or not answers:
        yield (
            "Error bars are over seeds, for these test subjects: how far the answer would move with other subjects "
            "of the same kind is not in them."
        )


def _searches(results: Results, searches: pl.DataFrame) -> Iterator[str]:
    if results.study.search.replicates == 1:
        yield "Each arm was searched once: another search could have found another winner, and that is not in the error bars."
    tried = searches.filter(pl.col("trials") > 0)
    unguided = tried.filter(pl.col("modelled") == 0)
    if len(unguided):
        yield (
            f"Of {len(searches)} searches, {len(unguided)} ended before the model suggested a trial: "
            "their winners are the best of starts and random tries."
        )
    gap = searches["optimism"].max()
    if isinstance(gap, float) and gap > 0:
        yield (
            f"A search's best value is chosen for being high: confirmed on fresh seeds it was lower by up to {signed(gap).lstrip('+')}. "
            "Only the test figures compare arms."
        )


def _training(results: Results) -> Iterator[str]:
    ended = results.runs().filter(pl.col("kind") == "confirmation", pl.col("current"), pl.col("state") == "complete")
    rising = ended.filter(pl.col("best_epoch") == pl.col("epochs"))
    if len(rising) * 2 > len(ended):
        yield (
            f"{len(rising)} of {count(len(ended), 'confirmation run')} were best at their last epoch: training was cut short "
            "while it still improved, and arms may learn at different speeds."
        )
