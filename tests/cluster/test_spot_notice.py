"""The script for spot machines: it waits for the notice, and then tells Ray, once."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "spot_notice.sh"
ASKED_BEFORE = 2  # times that nothing is announced yet


@pytest.fixture
def metadata() -> Iterator[tuple[str, list[str]]]:
    """AWS's instance metadata, second version: a token first. Its URL, and what was asked for."""
    asked: list[str] = []

    class Metadata(BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            ok = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
            self.answer(200 if ok else 400, b"word")

        def do_GET(self) -> None:
            asked.append(self.path)
            known = self.headers["X-aws-ec2-metadata-token"] == "word"
            self.answer(401 if not known else 404 if len(asked) <= ASKED_BEFORE else 200, b'{"action": "terminate"}')

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_it_tells_ray_when_the_machine_is_taken_back(metadata: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = metadata
    told, ray = tmp_path / "told", tmp_path / "ray"
    ray.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {told}\n')
    ray.chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "METADATA": url, "EVERY_S": "0.05"}
    done = subprocess.run(["bash", str(SCRIPT), "10.0.0.1:6379", str(ray)], env=env, timeout=60)
    assert done.returncode == 0 and len(asked) == ASKED_BEFORE + 1
    arguments = told.read_text().splitlines()
    assert arguments[:5] == ["drain-node", "--address", "10.0.0.1:6379", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    assert arguments.count("drain-node") == 1
