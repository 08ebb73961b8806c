"""Every fault that a node can have is found and ends in a sentence; a good cluster has none."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from marginlab.doctor.findings import GOOD, LOOK, WRONG, Finding, judge, token_file

HERE: dict[str, Any] = {
    "host": "head",
    "versions": {"python": "3.12.4", "ray": "2.60.0", "torch": "2.13.0", "polars": "1.0"},
    "workspace": {"seen_after_s": 0.0, "wrote": ".doctor-1", "error": "", "free": 9e10, "locks": True},
    "packed": {"oai": {"fingerprint": "ab12", "images": 40, "sample": "77"}},
    "gpus": {"told": 0, "usable": 0},
}
NODE: dict[str, Any] = {**HERE, "host": "gpu1", "gpus": {"told": 2, "usable": 2}, "late": 0.02, "echo": True}


def changed(value: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    out = deepcopy(value)
    inner = out
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return out


def troubles(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.state != GOOD]


def test_a_good_cluster() -> None:
    found = list(judge(HERE, {"10.0.0.2": NODE, "10.0.0.3": NODE}))
    assert not troubles(found)
    assert [f.what for f in found] == ["workspace", *["versions", "workspace", "clock", "GPUs"] * 2, "dataset oai"]
    assert found[-1].said == "ab12, 40 images, the same on every node."


@pytest.mark.parametrize(
    ("path", "to", "state", "says"),
    [
        (("versions", "ray"), "2.59.0", WRONG, r"ray 2\.59\.0 \(here 2\.60\.0\)\. Install the same lock"),
        (("versions", "polars"), "1.1", LOOK, r"polars 1\.1 \(here 1\.0\)"),
        (("workspace", "seen_after_s"), None, WRONG, "does not see what this machine wrote"),
        (("workspace", "seen_after_s"), 5.0, LOOK, "saw a new file only after 5 s"),
        (("workspace", "error"), "Permission denied", WRONG, r"cannot write the workspace \(Permission denied\)"),
        (("echo",), False, WRONG, "another folder of that name"),
        (("late",), -5.0, LOOK, "5 s behind this machine's"),
        (("late",), 90.0, WRONG, "90 s ahead of"),
        (("gpus", "usable"), 1, WRONG, "gives out 2 GPUs there and torch can use 1: .* --num-gpus=1"),
        (("packed", "oai"), {"error": "/w/data/oai: the file images.npy is missing"}, WRONG, r"images\.npy is missing"),
        (("packed", "oai", "sample"), "78", WRONG, "other images than this machine"),
    ],
)
def test_a_node_with_one_fault(path: tuple[str, ...], to: Any, state: str, says: str) -> None:
    found = list(judge(HERE, {"10.0.0.2": changed(NODE, *path, to=to), "10.0.0.3": NODE}))
    (trouble,) = troubles(found)
    assert trouble.state == state and trouble.where == "gpu1 (10.0.0.2)"
    assert re.search(says, trouble.said)


@pytest.mark.parametrize(
    ("path", "to", "needed", "state", "says"),
    [
        (("workspace", "error"), "Read-only file system", 0, WRONG, "cannot be written: Read-only file system"),
        (("workspace", "locks"), False, 0, LOOK, "has no locks"),
        (("workspace", "free"), 1e9, 0, LOOK, "Only 1 GB are free"),
        (("workspace", "free"), 9e9, 2e10, WRONG, r"9 GB are free and the study writes about 20\.0: make room"),
        (("packed", "oai"), {"error": "no such file"}, 0, WRONG, "no such file"),
    ],
)
def test_the_driver_with_one_fault(path: tuple[str, ...], to: Any, needed: float, state: str, says: str) -> None:
    (trouble,) = troubles(list(judge(changed(HERE, *path, to=to), {}, needed)))
    assert (trouble.state, trouble.where) == (state, "this machine")
    assert re.search(says, trouble.said)


def test_the_token_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    path = tmp_path / "auth_token"
    assert "generate" in token_file(path, "token").said
    path.write_text("secret")
    path.chmod(0o644)
    readable = token_file(path, "token")
    assert readable.state == WRONG and f"chmod 600 {path}" in readable.said and "secret" not in readable.said
    path.chmod(0o600)
    assert token_file(path, "token").state == GOOD
    assert "RAY_AUTH_MODE is not token" in token_file(path, "disabled").said
