"""``prepare``, killed at random moments and at each of its writes, ends with the same bytes as one that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from marginlab.data.packed import PackedDataset
from tests.data.listed import content, packed, people, write

SEED = 20221107  # of the random moments
IMAGES = 600
SECONDS = 12.0  # for each of the two ways to be killed; longer on a machine that is slow
LIFE = """
    import os, signal, sys
    from pathlib import Path
    from tests.data.listed import packed
    root, out, workers, last = sys.argv[1:]
    left = int(last)
    def counted(do):
        def write(*arguments, **keywords):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return do(*arguments, **keywords)
        return write
    if left:
        for name in ("write", "pwrite", "rename", "replace", "fsync", "fdatasync", "mkdir", "rmdir", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
    def said(done, total):
        sys.stdout.write(f"{done}\\n")
        sys.stdout.flush()
    packed(Path(root), Path(out), extend=True, workers=int(workers), progress=said)
"""


def life(raw: Path, out: Path, *, workers: int = 1, last: int = 0) -> subprocess.Popen[str]:
    """A ``prepare`` in a process of its own, which ends itself at its ``last``-th write."""
    path = os.pathsep.join(p for p in [str(Path(__file__).parents[2]), *sys.path] if p)
    argv = [sys.executable, "-c", textwrap.dedent(LIFE), str(raw), str(out), str(workers), str(last)]
    return subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], stdout=subprocess.PIPE, text=True).stdout
    return [int(p) for p in found.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def killed(process: subprocess.Popen[str], rng: random.Random, begun: int) -> tuple[list[int], list[int]]:
    """Kill it when it has said some more images to be done, or just so. What it said, and its decoding processes."""
    assert process.stdout is not None
    said: list[int] = []
    if rng.random() < 0.7:
        target = begun + rng.randrange(1, IMAGES // 4)
        while (not said or said[-1] < target) and (line := process.stdout.readline()):
            said.append(int(line))
    else:
        time.sleep(rng.uniform(0.1, 1.5))
    workers = children(process.pid)
    process.kill()
    rest, _ = process.communicate()
    return [*said, *(int(n) for n in rest.split("\n")[:-1])], workers


@pytest.mark.kills
def test_killed_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    raw, out = write(tmp_path / "raw", *people(0, IMAGES // 2)), tmp_path / "out"
    expected = content(packed(raw, tmp_path / "fresh").folder)
    until, kills, orphans = time.monotonic() + SECONDS, 0, []
    while time.monotonic() < until or kills < 3:
        begun, returned = 0, -signal.SIGKILL
        while returned != 0:
            process = life(raw, out, workers=2)
            said, workers = killed(process, rng, begun)
            returned, orphans = process.returncode, orphans + workers
            kills += returned == -signal.SIGKILL
            assert not said or said[0] >= begun  # what was said to be decoded is not decoded again
            begun = said[-1] if said else begun
        assert content(out) == expected
        shutil.rmtree(out)
    patience = time.monotonic() + 30
    while any(alive(pid) for pid in orphans) and time.monotonic() < patience:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in orphans)


@pytest.mark.kills
def test_killed_at_its_writes(tmp_path: Path) -> None:
    """A dataset to which images are added; whatever moment it is killed at, one that can be opened is there."""
    rng = random.Random(SEED)
    raw, out = write(tmp_path / "raw", *people(0, 20)), tmp_path / "out"
    fingerprints = [packed(raw, out).fingerprint]
    until, moments = time.monotonic() + SECONDS, list(range(1, 60))
    rng.shuffle(moments)
    while (time.monotonic() < until or len(fingerprints) <= 3) and moments:
        write(raw, *people(20 + len(fingerprints), 21 + len(fingerprints)))
        expected = packed(raw, tmp_path / f"fresh-{len(fingerprints)}")
        fingerprints.append(expected.fingerprint)
        for last in (moments.pop(), *rng.sample(range(1, 60), 1), 0):
            process = life(raw, out, last=last)
            process.communicate()
            place = out if out.exists() else out.with_name(".out.before")
            assert PackedDataset.open(place).fingerprint in fingerprints[-2:]
            assert process.returncode in (0, -signal.SIGKILL)
        assert content(out) == content(expected.folder)
