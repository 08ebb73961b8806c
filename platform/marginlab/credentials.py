"""Passwords and tokens of a job: a file that only its owner can read, where the cluster sees it.

What a job is submitted with (command line, environment, metadata) is shown by Ray to everyone who may use the cluster, and is kept
for as long as the cluster lives. So a secret is never sent along: whoever owns it puts it into a file once, the job reads it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from marginlab import bucket
from marginlab.values import InputError

FILE = "secrets.env"  # in the workspace, and in the user's own folder on the head, which alone a workspace in object storage has
OWN = "~/.config/marginlab"
_SECRET = re.compile(
    r"TOKEN|PASSW|PASSPHRASE|SECRET|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE|_KEY$|USERNAME", re.IGNORECASE
)
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)")


def places(workspace: Path | str) -> list[Path]:
    """The files that a job of a workspace reads, of which an earlier one wins: the workspace's, and the user's own on the head."""
    own = Path(OWN).expanduser() / FILE
    return [own] if bucket.named(workspace) else [Path(workspace) / FILE, own]


def told(workspace: str) -> str:
    """The same for people, who are elsewhere."""
    return f"{OWN if bucket.named(workspace) else workspace}/{FILE}"


def passed(names: Iterable[str], environment: Mapping[str, str], workspace: str) -> dict[str, str]:
    """The values of the variables that are to be sent along, in the open.

    Raises:
        InputError: one is not set here, or is a secret by its name or its value.
    """
    out = {}
    for name in names:
        if "=" in name:
            raise InputError("--env takes the name of a variable of this shell, without a value: --env NAME.")
        if name not in environment:
            raise InputError(f"--env {name}: there is no such variable in this shell. Set it first, or leave it out.")
        if _SECRET.search(name) or has_login(environment[name]):
            raise InputError(
                f"--env {name}: that looks like a secret, and what is sent with a job can be read by everyone who may use the "
                f"cluster. Write it into {told(workspace)} on the cluster instead, a line NAME=value each, mode 0600."
            )
        out[name] = environment[name]
    return out


def refuse_login(uri: str, option: str, instead: str, workspace: str) -> None:
    """Refuse an address with a password in it, which would stand in the job's command line. ``instead``: the variables."""
    if has_login(uri):
        raise InputError(
            f"{option}: leave the password out of the address, which is shown with the job. Write {instead} into "
            f"{told(workspace)} on the cluster, mode 0600."
        )


def has_login(text: str) -> bool:
    """Whether a text is an address with a password in it, also after a ``?``; over http a user name may be a token."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    named = any(
        _SECRET.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)
    )  # libpq's ?password=
    return named or parts.password is not None or (parts.scheme.startswith("http") and parts.username is not None)


def read(path: Path) -> dict[str, str]:
    """The variables of a file of lines ``NAME=value``; quotes around a value and lines that begin with # fall away.

    Raises:
        InputError: others can read or change the file, or a line is none. The sentence has no value in it.
    """
    try:
        opened = path.open()
    except PermissionError:
        raise InputError(f"{path} belongs to another user: chown {os.geteuid()} {path} && chmod 600 {path}.") from None
    with opened as f:
        about = os.fstat(f.fileno())
        if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or about.st_uid != os.geteuid():
            raise InputError(
                f"{path} holds secrets, and others than the user of this process can read or own it: "
                f"chown {os.geteuid()} {path} && chmod 600 {path}, and change the secrets if others have seen them."
            )
        lines = f.read().splitlines()
    out = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise InputError(f"{path}, line {number}: write NAME=value.")
        value = found[2].strip()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        out[found[1]] = value[1:-1] if quoted else value
    return out
