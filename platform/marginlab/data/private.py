"""Pseudonyms, and the one local file that can undo them.

A packed dataset names neither people nor files. The key of its pseudonyms and the map from its rows to the raw files are
in one file of mode 0600, outside of it, by default in ``$XDG_DATA_HOME/marginlab/<dataset fingerprint>.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from marginlab.values import InputError


def default_folder() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "marginlab"


def pseudonym(key: bytes, subject: str) -> str:
    """Keyed BLAKE2b of the raw identifier: without the key it cannot be found by trying identifiers."""
    return hashlib.blake2b(subject.encode(), key=key, digest_size=10).hexdigest()


def read_private(file: Path) -> dict[str, Any]:
    """What :func:`write_private` wrote, with its key."""
    try:
        content = json.loads(file.read_text())
        if len(bytes.fromhex(content["key"])) == 32:
            return dict(content)
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{file}: this private file is damaged, it has no key; restore it or move it away.")


def key_of(file: Path, otherwise: bytes | None = None) -> bytes:
    """The key in the private file; without one, the other key or a new one. The same data prepared again keeps its pseudonyms."""
    return bytes.fromhex(read_private(file)["key"]) if file.exists() else otherwise or secrets.token_bytes(32)


def digest_key(folder: Path) -> bytes:
    """32 bytes for digests of file names that lie beside a dataset while it is prepared; made once, and of no dataset."""
    file = folder / "digests.json"
    if not file.exists():
        write_private(file, secrets.token_bytes(32), {})
    return key_of(file)


def write_private(file: Path, key: bytes, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump({"key": key.hex(), **content}, out)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)
