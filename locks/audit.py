"""Are any of the locked versions known to be vulnerable? ``make audit``: exit code 1 if so, a warning where nobody can be asked.

pip-audit asks PyPI's advisory database. Without a network, or behind a mirror that has no advisories, it knows nothing, which
is no proof of anything and no reason to fail: it is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

LIMIT_S = 300
MOST = 0.05  # share of packages that may be unknown to the database before the whole audit counts as not made


def main(pip_audit: str, lock: str) -> int:
    command = [
        pip_audit,
        "--disable-pip",
        "--no-deps",
        "--requirement",
        lock,
        "--progress-spinner",
        "off",
        "--format",
        "json",
    ]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        packages = json.loads(said.stdout)["dependencies"]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as e:
        print(f"WARNING: {lock} was not audited: pip-audit gave no answer ({type(e).__name__}).")
        return 0
    code, sentences = judge(packages, lock)
    print("\n".join(sentences))
    return code


def judge(packages: list[dict[str, Any]], lock: str) -> tuple[int, list[str]]:
    """Exit code and what to say. ``packages``: pip-audit's, with ``vulns``, or with ``skip_reason`` where it could not ask."""
    unknown = [p["name"] for p in packages if "skip_reason" in p]
    bad = [p for p in packages if p.get("vulns")]
    said = []
    for p in bad:
        for v in p["vulns"]:
            mended = ", ".join(v.get("fix_versions") or []) or "no version yet"
            said.append(f"{p['name']} {p['version']}: {v['id']}, mended in {mended}.")
    if bad:
        named = " ".join(f"--upgrade-package {p['name']}" for p in bad)
        return 1, [
            *said,
            f'{len(bad)} of {len(packages)} packages of {lock} are vulnerable: make locks LOCK_ARGS="{named}"',
        ]
    if len(unknown) > MOST * len(packages):
        return 0, [
            f"WARNING: {lock} was not audited: {len(unknown)} of {len(packages)} packages could not be looked up. Is there a network?"
        ]
    rest = f"; not looked up: {', '.join(unknown)}" if unknown else ""
    return 0, [f"{len(packages) - len(unknown)} packages of {lock}: no known vulnerability{rest}."]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
