"""Hosts on one machine: network namespaces behind a bridge, each with a name and an address of its own. Needs root.

All names carry the process id of who made them: two test runs do not meet, and what a killed one left behind is removed.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NAMESPACES = Path("/var/run/netns")
FILES = Path("/etc/netns")  # NAME/hosts is what a host has for /etc/hosts, and so on (ip-netns(8))
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_OURS = re.compile(r"ml(\d+)[a-z]\w*")


def run(*argv: str, env: Mapping[str, str] | None = None, check: bool = True) -> str:
    """A command's output; AssertionError with all that it said where it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=300)
    assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Host:
    """``namespace`` is its network namespace's name and its host name."""

    namespace: str
    address: str

    @property
    def link(self) -> str:
        """The bridge's end of its cable."""
        return f"v{self.namespace}"

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` on this host, under its name."""
        named = ["unshare", "--uts", "sh", "-c", f'hostname {self.namespace} && exec "$@"', "sh", *argv]
        return ["ip", "netns", "exec", self.namespace, *named]

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        return run(*self.argv(*argv), env=env)

    def pids(self) -> list[int]:
        return [int(p) for p in run("ip", "netns", "pids", self.namespace, check=False).split()]

    def kill(self) -> None:
        """All that runs on it, outright, until nothing does: a machine that lost its power."""
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def unplug(self) -> None:
        """Its processes go on, and nobody hears of them."""
        run("ip", "link", "set", self.link, "down")

    def plug(self) -> None:
        run("ip", "link", "set", self.link, "up")


def enter(namespace: str) -> None:
    """Move the calling thread, and what it starts, to a host's network."""
    library = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / namespace).open() as f:
        if library.setns(f.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def build(names: Sequence[str]) -> list[Host]:
    """Hosts of these names, wired to one another."""
    _sweep()
    me = os.getpid()
    bridge, net = f"ml{me}br", f"10.{64 + me % 128}.{me // 128 % 256}"
    run("ip", "link", "add", bridge, "type", "bridge")
    run("ip", "addr", "add", f"{net}.1/24", "dev", bridge)
    run("ip", "link", "set", bridge, "up")
    hosts = [Host(f"ml{me}{name}", f"{net}.{11 + i}") for i, name in enumerate(names)]
    known = "".join(
        f"{a}\t{name}\n" for a, name in [("127.0.0.1", "localhost"), *((h.address, h.namespace) for h in hosts)]
    )
    for host in hosts:
        name = host.namespace
        run("ip", "netns", "add", name)
        # They know one another's names, and ask nobody for others: the machine's own name server does not answer them, and torch
        # would wait half a minute for it whenever a group of workers meets.
        (FILES / name).mkdir(parents=True)
        (FILES / name / "hosts").write_text(known)
        (FILES / name / "resolv.conf").write_text("")
        run("ip", "link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", host.link, "master", bridge, "up")
        run("ip", "-n", name, "addr", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            run("ip", "-n", name, "link", "set", device, "up")
        run("ip", "-n", name, "route", "add", "default", "via", f"{net}.1")
    return hosts


def demolish(pid: int | None = None) -> None:
    """Remove the hosts that a process made (this one), with all that runs on them."""
    prefix = f"ml{pid or os.getpid()}"
    names = NAMESPACES.iterdir() if NAMESPACES.is_dir() else []
    for name in sorted(p.name for p in names if re.fullmatch(rf"{prefix}[a-z]\w*", p.name)):
        Host(name, "").kill()
        run("ip", "netns", "del", name, check=False)
        shutil.rmtree(FILES / name, ignore_errors=True)
    run("ip", "link", "del", f"{prefix}br", check=False)
    for mounted in ("disk", "protected", "disk"):  # one may lie over the other
        run("umount", "--lazy", f"/tmp/{prefix}/{mounted}", check=False)
    shutil.rmtree(f"/tmp/{prefix}", ignore_errors=True)


def _sweep() -> None:
    """Remove hosts whose maker is gone."""
    names = [p.name for p in NAMESPACES.iterdir()] if NAMESPACES.is_dir() else []
    names += re.findall(r"\bml\d+br\b", run("ip", "-o", "link"))
    makers = {int(found[1]) for name in names if (found := _OURS.fullmatch(name))}
    for maker in makers:
        if not Path(f"/proc/{maker}").exists():
            demolish(maker)
