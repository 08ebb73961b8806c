"""What runs on the cluster when something was submitted: the command line, with the workspace's secrets in its environment."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from marginlab import credentials
from marginlab.cli import main as command_line
from marginlab.package import NOTE, keep
from marginlab.shell import HERE, errors
from marginlab.values import InputError
from marginlab.workspace import Workspace


def workspace_of(argv: list[str]) -> str:
    """The workspace that a command line names."""
    for i, word in enumerate(argv):
        name, given, value = word.partition("=")
        if name in ("--workspace", "-w"):
            return value if given else "".join(argv[i + 1 : i + 2])
    return HERE


def _keep_code(space: Workspace) -> None:
    try:
        keep(Path.cwd(), space.root)
    except OSError as e:
        raise InputError(
            f"The workspace {space} cannot be written on {socket.gethostname()} ({e.strerror or e}): name a folder on the storage that "
            "all nodes share and may write, such as --workspace /mnt/marginlab."
        ) from None


def main(argv: list[str] | None = None) -> None:
    """The entry point of jobs: the arguments of ``marginlab``. Variables of the environment win over the file's."""
    argv = sys.argv[1:] if argv is None else argv
    workspace = workspace_of(argv)
    try:
        for secrets in credentials.places(workspace):
            if secrets.exists():
                for name, value in credentials.read(secrets).items():
                    os.environ.setdefault(name, value)
        if Path(NOTE).exists():
            _keep_code(Workspace.at(workspace))
    except InputError as e:
        errors.print(f"marginlab: {e}", markup=False, soft_wrap=True)
        sys.exit(2)
    command_line(argv)


if __name__ == "__main__":
    main()
