"""An audit that found something fails, one that could ask nobody says so."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("audit", Path(__file__).parents[1] / "locks" / "audit.py")
assert _spec is not None and _spec.loader is not None
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)

GOOD = {"name": "numpy", "version": "2.0", "vulns": []}
BAD = {"name": "pillow", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}, {"id": "CVE-2"}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([GOOD] * 30, 0, "30 packages of x.txt: no known vulnerability."),
        ([GOOD] * 30 + [UNKNOWN], 0, "30 packages of x.txt: no known vulnerability; not looked up: torch."),
        ([UNKNOWN] * 30 + [GOOD], 0, "WARNING: x.txt was not audited: 30 of 31"),
        ([UNKNOWN] * 30 + [BAD], 1, "1 of 31 packages of x.txt are vulnerable: make locks"),
        ([GOOD, BAD], 1, "pillow 1.0: CVE-1, mended in 1.1.\npillow 1.0: CVE-2, mended in no version yet."),
    ],
)
def test_what_is_said(packages: list[dict[str, Any]], code: int, says: str) -> None:
    found, sentences = audit.judge(packages, "x.txt")
    assert found == code and says in "\n".join(sentences)


def test_no_answer_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = tmp_path / "pip-audit"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    for program in (silent, tmp_path / "absent"):
        assert audit.main(str(program), "x.txt") == 0
        assert capsys.readouterr().out.startswith("WARNING: x.txt was not audited: pip-audit gave no answer")
