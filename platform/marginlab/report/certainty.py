"""How sure an answer is, in sentences: what its interval draws anew, where the uncertainty comes from, what checks it."""

from __future__ import annotations

from collections.abc import Iterator

from marginlab.compare import LEVEL, Answer
from marginlab.report.words import count, percent, signed

CALIBRATION = "docs/calibration.md"


def certainty(a: Answer) -> list[str]:
    """Empty where there is no interval."""
    return list(_sentences(a)) if a.difference.low is not None else []


def _sentences(a: Answer) -> Iterator[str]:
    d = a.difference
    drawn = {
        "subjects": count(d.subjects, "test subject"),
        "seeds": count(d.n, "seed"),
        "searches": f"{d.replicates} searches per arm",
    }
    covered = [drawn[name] for name in d.covers]
    yield (
        f"The {100 * LEVEL:.0f}% interval is that of drawing anew {' and '.join(covered)}, the same draw for both arms; "
        f"Student's t with {d.df:.1f} degrees of freedom."
    )
    if "subjects" not in d.covers:
        yield "It holds for these test subjects: how far other subjects would move it is not in it."
    if a.conditional_on_searches:
        yield "It holds for the configurations found: each arm was searched once, and another search could have found another."
    if d.parts is not None and (whole := d.parts.searches + d.parts.seeds + d.parts.subjects):
        shares = [("searches", d.parts.searches), ("seeds", d.parts.seeds), ("subjects", d.parts.subjects)]
        said = ", ".join(f"{name} {percent(part / whole)}" for name, part in shares if part or name in d.covers)
        yield f"Its variance comes from: {said}. More seeds shrink the seeds' part alone."
    if d.p is not None:
        adjusted = "" if a.holm is None or a.holm == d.p else f", {_p(a.holm)} after Holm over the study's datasets"
        margin = (
            "" if a.p_margin is None else f"; of being worse by {a.margin:g} or more, one-sided: p = {_p(a.p_margin)}"
        )
        yield f"Of no difference: p = {_p(d.p)}{adjusted}{margin}."
        if a.verdict != "undecided" and not a.stands:
            yield "After Holm's adjustment for the number of datasets the verdict does not stand on its own."
    if a.check is not None and a.check.low is not None and a.check.mean is not None and a.check.high is not None:
        yield (
            f"Cross-check, Nadeau and Bengio's corrected t-test on {a.check.n} pairs of single models: {signed(a.check.mean)} "
            f"({signed(a.check.low)} to {signed(a.check.high)})."
        )
    if d.left_out:
        yield f"{count(d.left_out, 'pair')} of trained seeds lack their counterpart in another search and are left out."


def _p(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"
