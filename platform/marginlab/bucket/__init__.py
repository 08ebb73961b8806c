"""A workspace in object storage, ``s3://BUCKET/PREFIX``: every machine works in a folder of its own and keeps in step.

Run folders are added to, renamed and mapped into memory, which objects are not. So each path of such a workspace is one of this
machine's disk, ``~/.cache/marginlab/s3/BUCKET/PREFIX/...`` (MARGINLAB_CACHE moves it; it is the same on all nodes of a cluster). What
is written there through ``marginlab.files`` is sent before its writer goes on (``send``), and who reads what others write asks for
it first (``fetch``). What was sent is the truth; hidden files are this machine's alone. Elsewhere than there all of this does nothing.
"""

from marginlab.bucket.folders import alone, fetch, fetch_runs, move
from marginlab.bucket.life import beating, beats
from marginlab.bucket.place import CACHE, SETTINGS, Away, cache, filesystem, folder_of, key_of, named, shown
from marginlab.bucket.single import bring, check, hindrance, remove, send, there
from marginlab.bucket.whole import Progress, fetch_whole, send_whole, witnesses

__all__ = [
    "CACHE",
    "SETTINGS",
    "Away",
    "Progress",
    "alone",
    "beating",
    "beats",
    "bring",
    "cache",
    "check",
    "fetch",
    "fetch_runs",
    "fetch_whole",
    "filesystem",
    "folder_of",
    "hindrance",
    "key_of",
    "move",
    "named",
    "remove",
    "send",
    "send_whole",
    "shown",
    "there",
    "witnesses",
]
