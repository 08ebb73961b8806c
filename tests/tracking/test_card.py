from __future__ import annotations

from marginlab.tracking.card import MOST, _cut


def test_a_card_fits_mlflows_column_and_is_cut_at_a_line():
    """5,000 characters: sqlite takes more, PostgreSQL refuses them."""
    lines = [f"line {i}" for i in range(1000)]
    assert _cut("\n".join(lines[:100])) == "\n".join(lines[:100])
    cut = _cut("\n".join(lines))
    assert len(cut) <= MOST and cut.endswith("(The rest is in the study's report.)")
    assert cut.partition("\n\n")[0].splitlines() == lines[: len(cut.partition("\n\n")[0].splitlines())]
