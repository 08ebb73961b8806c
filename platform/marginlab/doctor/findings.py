"""What was seen, judged: one finding per thing, with a sentence that says what to mend."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOOD, LOOK, WRONG = "good", "look", "wrong"
CLOCK_LOOK_S, CLOCK_WRONG_S = (
    2.0,
    60.0,
)  # later than the driver: odd times in MLflow; paces and progress that are nonsense
LATE_S = 2.0  # after which a node sees what another wrote
ROOM = 5e9  # bytes: with less, a study of any size is short of room
MUST_MATCH = ("python", "ray", "marginlab", "torch", "numpy")  # others may differ by what the locks allow


@dataclass(frozen=True)
class Finding:
    what: str  # "clock", "workspace", ...
    where: str  # host, or "" for all
    state: str  # GOOD, LOOK or WRONG
    said: str


def judge(driver: dict[str, Any], nodes: Mapping[str, dict[str, Any]], needed: float = 0.0) -> Iterator[Finding]:
    """
    Args:
        driver: what ``node.look`` says of the machine that will lead the study.
        nodes: the same of every node, by address, with ``late``, the seconds by which its clock is ahead of the driver's, and
            ``echo``, whether the driver saw the file that the node wrote.
        needed: bytes that the study will write.
    """
    yield from _workspace(driver, "this machine", needed)
    for name, node in nodes.items():
        where = f"{node['host']} ({name})"
        yield from _versions(driver, node, where)
        yield from _shared(node, where)
        yield _clock(node["late"], where)
        yield from _gpus(node, where)
    for name, here in driver["packed"].items():
        yield from _dataset(name, here, nodes)


def _workspace(seen: dict[str, Any], where: str, needed: float) -> Iterator[Finding]:
    w = seen["workspace"]
    if w["error"]:
        yield Finding("workspace", where, WRONG, f"It cannot be written: {w['error']}. Mend that, or name another one.")
        return
    if not w["locks"]:
        said = "Its file system has no locks, so nothing keeps two people from running one study at once: see to it."
        yield Finding("locks", where, LOOK, said)
    room = f"{w['free'] / 1e9:.0f} GB are free"
    if needed and w["free"] < needed:
        yield Finding("disk", where, WRONG, f"{room} and the study writes about {needed / 1e9:.1f}: make room.")
    elif not needed and w["free"] < ROOM:
        yield Finding("disk", where, LOOK, f"Only {room}.")
    else:
        yield Finding("workspace", where, GOOD, f"It can be written; {room}.")


def _versions(driver: dict[str, Any], node: dict[str, Any], where: str) -> Iterator[Finding]:
    here, there = driver["versions"], node["versions"]
    other = [n for n in here if there.get(n) != here[n]]
    if not other:
        yield Finding(
            "versions", where, GOOD, f"Python {there['python']}, Ray {there['ray']}, torch {there['torch']}, as here."
        )
        return
    named = ", ".join(f"{n} {there.get(n)} (here {here[n]})" for n in other)
    hard = [n for n in other if n in MUST_MATCH]
    remedy = "Install the same lock on all nodes (locks/), and start Ray there again."
    yield Finding("versions", where, WRONG if hard else LOOK, f"{named}. {remedy}")


def _shared(node: dict[str, Any], where: str) -> Iterator[Finding]:
    w = node["workspace"]
    if w["seen_after_s"] is None:
        said = "It does not see what this machine wrote into the workspace: put that on storage that all nodes see under one path."
        yield Finding("workspace", where, WRONG, said)
    elif w["error"]:
        said = f"It cannot write the workspace ({w['error']}): mend its permissions there."
        yield Finding("workspace", where, WRONG, said)
    elif not node["echo"]:
        said = "What it wrote into the workspace is not seen here: it has another folder of that name."
        yield Finding("workspace", where, WRONG, said)
    elif w["seen_after_s"] > LATE_S:
        said = f"It saw a new file only after {w['seen_after_s']:.0f} s: lower the attribute cache of that mount (NFS: actimeo)."
        yield Finding("workspace", where, LOOK, said)
    else:
        yield Finding("workspace", where, GOOD, "It sees and writes the same workspace.")


def _clock(late: float, where: str) -> Finding:
    if abs(late) < CLOCK_LOOK_S:
        return Finding("clock", where, GOOD, f"Within {max(abs(late), 0.1):.1f} s of this machine's.")
    said = f"Its clock is {abs(late):.0f} s {'ahead of' if late > 0 else 'behind'} this machine's: start time synchronisation (chrony)."
    return Finding("clock", where, WRONG if abs(late) >= CLOCK_WRONG_S else LOOK, said)


def _gpus(node: dict[str, Any], where: str) -> Iterator[Finding]:
    told, usable = node["gpus"]["told"], node["gpus"]["usable"]
    if told > usable:
        said = (
            f"Ray gives out {told:g} GPUs there and torch can use {usable}: install locks/gpu.txt and a driver that fits it, or start "
            f"Ray with --num-gpus={usable}."
        )
        yield Finding("GPUs", where, WRONG, said)
    elif told:
        yield Finding("GPUs", where, GOOD, f"{told:g}, and torch can use {usable}.")


def _dataset(name: str, here: dict[str, Any], nodes: Mapping[str, dict[str, Any]]) -> Iterator[Finding]:
    what = f"dataset {name}"
    if "error" in here:
        yield Finding(what, "this machine", WRONG, here["error"])
        return
    for address, node in nodes.items():
        there = node["packed"][name]
        where = f"{node['host']} ({address})"
        if "error" in there:
            yield Finding(what, where, WRONG, there["error"])
        elif there != here:
            yield Finding(
                what,
                where,
                WRONG,
                "It sees other images than this machine under the same path: prepare again, or mend the mount.",
            )
    if all(node["packed"][name] == here for node in nodes.values()):
        everywhere = "the same on every node" if nodes else "opened"
        yield Finding(what, "", GOOD, f"{here['fingerprint']}, {here['images']} images, {everywhere}.")


def token_file(path: Path, mode: str | None) -> Finding:
    """
    Args:
        path: where Ray looks for its token.
        mode: RAY_AUTH_MODE.
    """
    if mode != "token":
        said = "RAY_AUTH_MODE is not token: whoever reaches the cluster's ports runs code on it. export RAY_AUTH_MODE=token, on every node."
        return Finding("token", "this machine", WRONG, said)
    if "RAY_AUTH_TOKEN" in os.environ:
        return Finding("token", "this machine", GOOD, "From the environment (RAY_AUTH_TOKEN).")
    if not path.exists():
        said = f"There is no {path}: (umask 077 && RAY_AUTH_MODE=token ray get-auth-token --generate) makes one for you alone."
        return Finding("token", "this machine", WRONG, said)
    others = stat.S_IMODE(path.stat().st_mode) & 0o077
    if others:
        said = f"{path} can be read by others on this machine: chmod 600 {path}, and a new token if others were there."
        return Finding("token", "this machine", WRONG, said)
    return Finding("token", "this machine", GOOD, f"{path} is for you alone.")
