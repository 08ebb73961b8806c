"""One file: sent, brought, looked for, taken back; and whether the storage takes any."""

from __future__ import annotations

from pathlib import Path

from marginlab.bucket.objects import files, get, hidden, in_step, put
from marginlab.bucket.place import Away, key_of, told
from marginlab.values import InputError


def send(path: Path) -> None:
    """Send a file as it is now; returns when it is there. Hidden files stay here."""
    key = key_of(path)
    if key is None or hidden(key):
        return
    with told(key) as fs:
        put(fs, path, key)


def bring(path: Path) -> None:
    """Have here what was sent of a file, if it was."""
    key = key_of(path)
    if key is None:
        return
    with told(key) as fs:
        info = fs.get_file_info(key)
        if info.is_file and not in_step(path, info):
            get(fs, key, path)


def there(path: Path) -> bool:
    """Whether a file was sent by anybody."""
    key = key_of(path)
    if key is None:
        return False
    with told(key) as fs:
        return bool(fs.get_file_info(key).is_file)


def remove(path: Path) -> None:
    """Take back a file, or all of a folder, that may have been sent."""
    key = key_of(path)
    if key is None:
        return
    with told(key) as fs:
        if fs.get_file_info(key).is_file:
            fs.delete_file(key)
        for name in files(fs, key, everything=True):
            fs.delete_file(f"{key}/{name}")


def hindrance(path: Path) -> str:
    """Why nothing can be sent to a folder, in a few words; empty where it can."""
    key = key_of(path)
    if key is None:
        return ""
    try:
        with told(key) as fs, fs.open_output_stream(f"{key}/.room") as out:
            out.write(b"room")
    except Away as e:
        return str(e.strerror)
    return ""


def check(path: Path, *, writable: bool = False) -> None:
    """Refuse a workspace that cannot be read, or written, with what to do about it."""
    key = key_of(path)
    if key is None:
        return
    name = key.partition("/")[0]
    try:
        with told(key) as fs:
            why = "" if fs.get_file_info(name).type else f"s3://{key}: no such bucket"
    except Away as e:
        why = str(e.strerror)
    if why := why or (hindrance(path) if writable else ""):
        raise InputError(
            f"{why}. Is there such a bucket, may these credentials read{' and write' if writable else ''} it (environment, ~/.aws or the "
            "machine's role), and does the server answer (AWS_REGION; AWS_ENDPOINT_URL where it is not AWS's)?"
        )
