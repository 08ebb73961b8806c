"""Makes the oracle beside these tests importable as ``brute_force``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
