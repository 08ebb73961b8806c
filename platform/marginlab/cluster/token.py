"""The token that a Ray cluster obeys: where it lies, and that it is its owner's alone. Does not import Ray."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from marginlab.values import InputError


def token_file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()


def check_token() -> None:
    """Refuse a token that others on this machine can read: whoever has it can run code on the whole cluster."""
    path = token_file()
    if "RAY_AUTH_TOKEN" in os.environ or not path.exists():
        return
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(
            f"{path} can be read by others, and whoever has the token can run code on the cluster: chmod 600 {path}. If others "
            "use this machine, give the cluster a new token."
        )


def make_token() -> None:
    """Make the token of a Ray that is started here, where there is none yet: Ray would make it readable for all."""
    path = token_file()
    if os.environ.get("RAY_AUTH_MODE") != "token" or "RAY_AUTH_TOKEN" in os.environ or path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(secrets.token_hex(32))
    try:
        os.link(partial, path)  # whole, or not at all; another process's stays
    except FileExistsError:
        pass
    finally:
        partial.unlink()
