"""An S3 server of the test's own: OpenStack Swift, real, in four processes; it can be stopped, killed and started again."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import S3FileSystem

from tests.tracking.serving import free_port

LIMIT_S = 120.0
REGION = "us-east-1"
KINDS = ("account", "container", "object")  # of Swift's servers that store; clients talk to its proxy

# One copy of everything, on one device. Backends may take as long as they like on a busy machine: what was answered is stored,
# and what is stored is listed.
COMMON = """[DEFAULT]
swift_dir = {folder}
devices = {folder}
mount_check = false
user = {user}
bind_ip = {host}
bind_port = {port}
workers = 0
conn_timeout = 60
node_timeout = 60
fallocate_reserve = 0
[filter:healthcheck]
use = egg:swift#healthcheck
"""
STORES = """[pipeline:main]
pipeline = healthcheck {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
conn_timeout = 60
node_timeout = 60
container_update_timeout = 60
"""
PROXY = """[pipeline:main]
pipeline = catch_errors healthcheck s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 60
node_timeout = 60
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
[filter:slo]
use = egg:swift#slo
"""
RINGS = """import sys
from swift.common.ring import RingBuilder
for word in sys.argv[2:]:
    kind, port = word.split("=")
    builder = RingBuilder(1, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "disk", "weight": 1})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""


def program(name: str) -> str:
    """One of the environment that Swift has for itself."""
    found = sorted((Path(__file__).parents[1] / "build").glob(f"swift-*/bin/{name}"), reverse=True)
    if not found:
        pytest.fail("There is no OpenStack Swift, the S3 server of these tests: run `make s3`.")
    return str(found[0])


class S3:
    """``host``: the address of this machine that it listens on."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        taken: set[int] = set()
        while len(taken) <= len(KINDS):  # Swift would not mind two servers on one port
            taken.add(free_port())
        self.folder, self.host, self.port = folder, host, taken.pop()
        self.access_key, self.secret_key = "lab:tester", secrets.token_hex(16)
        self.processes: list[subprocess.Popen[bytes]] = []
        (folder / "disk").mkdir()
        try:
            os.setxattr(folder / "disk", "user.marginlab", b"")
        except OSError as e:
            pytest.fail(f"Swift stores in extended attributes, which {folder} cannot have ({e}): set TMPDIR.")
        common: dict[str, Any] = {"folder": folder, "user": pwd.getpwuid(os.getuid()).pw_name}
        (folder / "swift.conf").write_text(f"[swift-hash]\nswift_hash_path_suffix = {secrets.token_hex(8)}\n")
        ports = dict(zip(KINDS, taken, strict=True))
        for kind, port in ports.items():
            words = COMMON.format(host="127.0.0.1", port=port, **common) + STORES.format(kind=kind)
            (folder / f"{kind}.conf").write_text(words)
        account, user = self.access_key.split(":")
        words = COMMON.format(host=host, port=self.port, **common)
        words += PROXY.format(region=REGION, account=account, user=user, secret=self.secret_key)
        (folder / "proxy.conf").write_text(words)
        self._health = [f"http://127.0.0.1:{port}/healthcheck" for port in ports.values()] + [f"{self.url}/healthcheck"]
        argv = [program("python"), "-c", RINGS, str(folder), *(f"{kind}={port}" for kind, port in ports.items())]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to know. Arrow's reads the endpoint for s3:// addresses only."""
        known = {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": REGION}
        return known | {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def files(self, **other: Any) -> S3FileSystem:
        """Arrow's client, whatever the environment says."""
        own = {"access_key": self.access_key, "secret_key": self.secret_key, "region": REGION}
        return S3FileSystem(**{**own, "endpoint_override": self.url, **other})

    def make_bucket(self, name: str) -> None:
        self.files(allow_bucket_creation=True).create_dir(name)

    def start(self) -> None:
        """Returns when all four answer."""
        assert not self.processes
        for kind in (*KINDS, "proxy"):
            argv = [program(f"swift-{kind}-server"), str(self.folder / f"{kind}.conf"), "--verbose"]
            with (self.folder / "log").open("a") as log:
                made = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
            self.processes.append(made)
        until = time.monotonic() + LIMIT_S
        for url in self._health:
            while not _answers(url):
                ended = [p for p in self.processes if p.poll() is not None]
                assert not ended and time.monotonic() < until, (self.folder / "log").read_text()[-3000:]
                time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """SIGKILL as a crash. What a client was told is stored stays stored."""
        for process in self.processes:
            process.send_signal(how)
        for process in self.processes:
            process.wait(60)
        self.processes.clear()


def _answers(url: str) -> bool:
    with suppress(OSError):
        urllib.request.urlopen(url, timeout=5).close()
        return True
    return False


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[S3]:
    """A started server, gone with all that it kept at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="marginlab-s3-"))
    made: S3 | None = None
    try:
        made = S3(folder, host)
        made.start()
        yield made
    finally:
        if made is not None:
            made.stop()
        shutil.rmtree(folder, ignore_errors=True)
