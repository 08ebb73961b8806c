"""A Ray cluster on hosts of one machine: a head that only drives, and workers that can be lost and come back.

Ray's processes are ended host by host, never with ``ray stop``, which ends every Ray of the machine.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marginlab.cluster import ENVIRONMENT
from tests.hosts import netns
from tests.hosts.netns import Host

PORT = 6379
RAY = str(Path(sys.executable).with_name("ray"))
RAYLET = "/raylet/raylet "  # in a raylet's title
LIMIT_S = 240.0
TRIES = 5
DISK = "100m"
ROOT = Path(__file__).parents[2]
# A host that is lost is missed after five seconds, not after fifteen.
SOON = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_initial_delay_ms": "0",
}


@dataclass
class RayCluster:
    """``head`` runs drivers and what costs no CPU; ``workers`` train."""

    folder: Path  # short: Ray's sockets lie in it
    head: Host
    workers: list[Host]
    cpus: int = 2  # of each worker
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, workers: int = 2, cpus: int = 2) -> RayCluster:
        hosts = netns.build(["head", *(f"w{i}" for i in range(1, workers + 1))])
        folder = Path(f"/tmp/ml{os.getpid()}")
        folder.mkdir()
        cluster = cls(folder, hosts[0], hosts[1:], cpus)
        # Before anything runs on them: what is mounted later, hosts do not see.
        for place in (cluster.disk, cluster.protected):
            place.mkdir()
        netns.run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(cluster.disk))
        netns.run("mount", "--make-shared", str(cluster.disk))  # but for what is mounted over it
        netns.run("mount", "--bind", str(cluster.disk), str(cluster.protected))
        netns.run("mount", "--make-private", str(cluster.protected))
        netns.run("mount", "-o", "remount,bind,ro", str(cluster.protected))
        cluster.env = cluster._environment()
        cluster.raise_head()
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(cluster.raise_worker, cluster.workers))
        return cluster

    def _environment(self) -> dict[str, str]:
        """A home of its own, with the cluster's token in it, and nothing of the caller's own Ray."""
        home = self.home
        (home / ".ray").mkdir(parents=True)
        token = home / ".ray" / "auth_token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
        # Without compiled modules every process would compile them all.
        left_out = ("RAY_", "PYTEST_", "PYTHONDONTWRITEBYTECODE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
        own = {"HOME": str(home), "XDG_DATA_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        own["MARGINLAB_CACHE"] = str(self.cache)
        return {**kept, **ENVIRONMENT, **SOON, "RAY_AUTH_MODE": "token", **own}

    @property
    def disk(self) -> Path:
        """A small disk that all hosts see."""
        return self.folder / "disk"

    @property
    def cache(self) -> Path:
        """The head's; on a worker a folder of its own has this name."""
        return self.folder / "cache"

    def private(self, host: Host) -> Path:
        """That folder, as this machine sees it."""
        return self.folder / f"cache-{host.namespace}"

    @property
    def protected(self) -> Path:
        """The same disk, read-only."""
        return self.folder / "protected"

    def protect(self, host: Host | None = None) -> None:
        """The disk is read-only from now on, for all hosts or, until it is raised again, for one. What is open for writing stays so,
        as a study's lock does: because of it the kernel would refuse to remount the disk itself."""
        there = [] if host is None else ["nsenter", "--mount", f"--target={min(self.pids(RAYLET, [host]))}"]
        netns.run(*there, "mount", "--bind", str(self.protected), str(self.disk))

    def unprotect(self) -> None:
        """For all hosts again, if it was protected."""
        if os.statvfs(self.disk).f_flag & os.ST_RDONLY:
            netns.run("umount", "--lazy", str(self.disk))

    @property
    def address(self) -> str:
        return f"{self.head.address}:{PORT}"

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:8265"

    @property
    def outside(self) -> str:
        """Where all hosts reach what runs on this machine beside them."""
        return self.head.address.rsplit(".", 1)[0] + ".1"

    def raise_head(self) -> None:
        self._ray(self.head, "--head", f"--port={PORT}", f"--dashboard-host={self.head.address}", "--num-cpus=0")

    def raise_worker(self, host: Host) -> None:
        self.cache.mkdir(exist_ok=True)
        self.private(host).mkdir(exist_ok=True)
        mounted = f'mount --bind {self.private(host)} {self.cache} && exec "$@"'
        self._ray(host, f"--address={self.address}", f"--num-cpus={self.cpus}", before=("sh", "-c", mounted, "sh"))

    def _ray(self, host: Host, *options: str, before: tuple[str, ...] = ()) -> None:
        fixed = [f"--node-ip-address={host.address}", "--object-store-memory=100000000", "--disable-usage-stats"]
        fixed.append(f"--temp-dir={self.folder / host.namespace}")
        for left in reversed(range(TRIES)):  # Ray gives its own start half a minute, which a busy machine may not have
            try:
                host.run(*before, RAY, "start", *options, *fixed, env=self.env)
                return
            except AssertionError:
                host.kill()
                if not left:
                    raise

    @property
    def home(self) -> Path:
        """Of all that runs on it."""
        return self.folder / "home"

    def pids(self, title: str, hosts: list[Host] | None = None) -> dict[int, Host]:
        """Ray's processes whose title has these words, by process id, with the host that they run on."""
        found = {}
        for host in hosts or [self.head, *self.workers]:
            for pid in host.pids():
                if title in _title(pid):
                    found[pid] = host
        return found

    def close(self) -> None:
        netns.demolish()


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def wait(until: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + limit_s
    while not (answer := until()):
        assert time.monotonic() < deadline, f"{what} did not come within {limit_s:.0f} s"
        time.sleep(0.05)
    return answer
