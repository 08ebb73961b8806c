from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marginlab.tracking import Apart, Tracker, TrackingAway
from tests.tracking.serving import free_port


def process(tracker: Tracker) -> int:
    return os.getpid()


def imported(tracker: Tracker, name: str) -> bool:
    return name in sys.modules


def ended(tracker: Tracker) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def signalled(tracker: Tracker) -> str:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    return "still there"


def test_one_process_keeps_what_it_knows_and_is_replaced_when_it_is_killed(place):
    fake = place.trial(0).train(2)
    with Apart(Tracker(place.workspace, place.study)) as tracking:
        assert tracking.do(Tracker.sync)["runs"] == 1
        first = tracking.do(process)
        assert first != os.getpid() and tracking.do(imported, "mlflow") and not tracking.do(imported, "ray")
        run = tracking.do(Tracker.run_of, fake.task.folder)
        fake.train(1)
        os.kill(first, signal.SIGKILL)
        assert tracking.do(Tracker.sync)["runs"] == 0  # another process goes on with the same runs
        assert tracking.do(process) != first and tracking.do(Tracker.run_of, fake.task.folder) == run
        assert tracking.do(signalled) == "still there"
    assert place.of_epochs() == place.expected(fake)  # every point once


def test_what_ends_it_again_and_a_server_that_is_not_there_are_said(place):
    with Apart(Tracker(place.workspace, place.study)) as tracking:
        with pytest.raises(TrackingAway, match=r"was killed, and again.*marginlab sync"):
            tracking.do(ended)
        assert tracking.do(process)
    url = f"http://127.0.0.1:{free_port()}"
    with (
        Apart(Tracker(place.workspace, place.study, url)) as tracking,
        pytest.raises(TrackingAway, match=re.escape(f"No MLflow answers at {url}")),
    ):
        tracking.do(Tracker.reach)


PARENT = """
import sys, time
from test_apart import process
from marginlab.tracking import Apart, Tracker
if __name__ == "__main__":
    print(Apart(Tracker(sys.argv[1], sys.argv[2])).do(process), flush=True)
    time.sleep(600)
"""


def test_it_ends_with_its_driver(place, tmp_path):
    (tmp_path / "driver.py").write_text(PARENT)
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root / "platform", root, Path(__file__).parent)))}
    argv = [sys.executable, str(tmp_path / "driver.py"), str(place.workspace), str(place.study)]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        child = int(driver.stdout.readline())
        driver.kill()
    until = time.monotonic() + 30
    while Path(f"/proc/{child}/cmdline").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}/cmdline").exists()
