"""The line that ``run`` and ``status`` print for optuna-dashboard opens the study's database."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import optuna

from marginlab.watching import dashboard_line


def test_the_dashboard_shows_the_searches(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(storage=storage, study_name="oai/fixed/r0").enqueue_trial({"x": 1.0})
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command, *arguments = shlex.split(dashboard_line(tmp_path), comments=True)
    assert (command, arguments) == ("optuna-dashboard", [storage])
    argv = [str(Path(sys.executable).parent / command), *arguments, "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=10) as answer:
                    names = [s["study_name"] for s in json.load(answer)["study_summaries"]]
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.2)
    finally:
        process.terminate()
        process.wait()
    assert names == ["oai/fixed/r0"]
