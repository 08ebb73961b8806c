"""Makes ``planted`` and the oracle of the losses, ``brute_force``, importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "losses")]
