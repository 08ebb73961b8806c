from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from marginlab.lock import Held, held, locked

ROOT = Path(__file__).parents[1]
HOLD = """
import sys, time
from pathlib import Path
from marginlab.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_survives_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "studies" / "a.lock"
    assert not held(path)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], env=env, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    assert held(path)
    with pytest.raises(Held, match=f"held by process {other.pid} on {os.uname().nodename}"), locked(path):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert not held(path)
    with locked(path):
        assert held(path)
    assert not held(path)


def test_who_waits_gets_it_next(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []

    def second() -> None:
        with locked(path, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(path):
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_somebody_who_only_looks_is_not_in_the_way(tmp_path: Path) -> None:
    path, over = tmp_path / "lock", threading.Event()
    path.touch()

    def look() -> None:
        while not over.is_set():
            held(path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(200):
            with locked(path):
                pass
    finally:
        over.set()
        looker.join()


def test_a_full_disk_takes_no_lock_away(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            stack.enter_context(locked(path))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert held(path)
        with pytest.raises(Held), locked(path):
            pass


def test_where_there_are_no_locks_the_caller_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with locked(tmp_path / "lock"):
        pass
    with pytest.raises(OSError, match="No locks available"), locked(tmp_path / "lock", needed=True):
        pass
