"""Servers for tests: started, waited for until they answer, and ended with all that they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Server:
    """MLflow's server, which can be stopped and started again on what it kept."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], folder: Path, url: str) -> None:
        self.argv, self.env, self.folder, self.url = argv, env, folder, url
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        log = self.folder / "server.log"
        with log.open("a") as out:
            self.process = subprocess.Popen(
                self.argv, env=self.env, stdout=out, stderr=out, cwd=self.folder, start_new_session=True
            )
        while not _answers(f"{self.url}/health"):
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(30)
                break


@contextmanager
def serving(argv: Sequence[str], env: Mapping[str, str], folder: Path, port: int) -> Iterator[str]:
    """MLflow's server on a port of this machine, from when it is up. Yields its URL."""
    server = Server(argv, env, folder, f"http://127.0.0.1:{port}")
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as e:
        return e.code == 401  # it is up and asks who is there
    except OSError:
        return False
    return True
