"""A host that is announced to go: what trains on it is kept between two batches, and goes on there on another host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from marginlab.files import read_json
from marginlab.replay import find_data, replay
from marginlab.runs import RunFolder
from tests.hosts.driving import Driver, Head
from tests.hosts.faults import WORKER
from tests.hosts.raycluster import RAY
from tests.hosts.studies import linger

SCRIPT = Path(__file__).parents[2] / "docs" / "spot_notice.sh"
ASKED_BEFORE = 2  # times that nothing is announced yet


@pytest.fixture
def metadata(head: Head) -> Iterator[tuple[str, list[str]]]:
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

    server = ThreadingHTTPServer((head.cluster.outside, 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{head.cluster.outside}:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_host_that_is_taken_back_costs_batches_and_not_the_epoch(
    head: Head, metadata: tuple[str, list[str]], tmp_path: Path
) -> None:
    cluster, (url, asked) = head.cluster, metadata
    slow, driver = linger(cluster.home), Driver(head, "lingering", tmp_path / "lingering")
    (host,) = set(driver.until(lambda: list(cluster.pids(WORKER).values())))
    slow.touch()  # so that it is announced, and the host goes, within an epoch
    try:
        driver.until(lambda: list(driver.folder.rglob("last.safetensors")))
        env = {**cluster.env, "METADATA": url, "EVERY_S": "0.1"}
        host.run("bash", str(SCRIPT), cluster.address, RAY, env=env)
        assert len(asked) == ASKED_BEFORE + 1
        (part, *_) = driver.until(lambda: list(driver.folder.rglob("partway.safetensors")))
        host.kill()
        kept = RunFolder.open(part.parent).partway()
        slow.unlink()
        driver.end()
    finally:
        driver.kill()
        slow.unlink(missing_ok=True)
        host.kill()  # Ray gives nothing to a host that was announced to go
        cluster.raise_worker(host)
    folder = RunFolder.open(part.parent)
    assert kept > 0 and read_json(folder.path / "attempts.json")["batches"] == kept
    result = replay(folder, find_data(tmp_path / "lingering", folder.run.data))
    assert [e.same for e in result.epochs] == [True] * len(result.epochs)
