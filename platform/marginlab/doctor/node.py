"""What one machine says about itself. It runs on every node, so it takes and gives plain values and imports no Ray."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import marginlab
from marginlab import bucket
from marginlab.data.packed import WITNESS, PackedDataset
from marginlab.files import write_text
from marginlab.lock import NO_LOCKS, locked
from marginlab.values import InputError

PACKAGES = ("ray", "torch", "numpy", "optuna", "polars", "pyarrow", "mlflow")
MARK = "doctor"  # how the files begin that a look writes, and removes
SAMPLE = 64  # images of a dataset that are compared
SEEN_S = 10.0  # how long a file that another node wrote may take to be seen
_COUNT_GPUS = "import torch; print(torch.cuda.device_count())"


def look(workspace: str, mark: str, packed: Mapping[str, str], gpus: float) -> dict[str, Any]:
    """
    Args:
        workspace: the folder that all nodes must see alike.
        mark: name of the file that the driver wrote there; this node writes one of its own beside it.
        packed: folder of each packed dataset by name.
        gpus: how many Ray was told that this machine has.
    """
    return {
        "host": os.uname().nodename,
        "versions": versions(),
        "workspace": _workspace(Path(workspace), mark),
        "packed": {name: dataset(folder) for name, folder in packed.items()},
        "gpus": {"told": gpus, "usable": usable_gpus() if gpus else 0},
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "marginlab": marginlab.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def now() -> float:
    """Seconds since 1970, by this machine's clock."""
    return time.time()


def usable_gpus() -> int:
    """GPUs that torch can use, asked in a process of its own: to a task without a GPU, Ray shows none."""
    env = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    try:
        said = subprocess.run([sys.executable, "-c", _COUNT_GPUS], env=env, capture_output=True, text=True, timeout=120)
        return int(said.stdout.strip() or 0)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


def _workspace(folder: Path, mark: str) -> dict[str, Any]:
    """Whether the driver's file is seen here, a file can be written, how much room there is, whether there are locks."""
    seen = appears(folder / mark)
    own = folder / f"{mark}-{os.uname().nodename}-{os.getpid()}"
    found: dict[str, Any] = {"seen_after_s": seen, "wrote": own.name, "error": "", "free": 0, "locks": True}
    try:
        write_text(own, mark, patient=False)
        found["free"] = shutil.disk_usage(folder).free
        with locked(own, needed=True):
            pass
    except OSError as e:
        found["locks"] = e.errno not in NO_LOCKS
        if found["locks"]:
            found |= {"error": e.strerror or str(e), "wrote": ""}
    return found


def appears(path: Path) -> float | None:
    """Seconds until a file was seen, None where it was not: network file systems show others' files late."""
    began = time.monotonic()
    while not (path.exists() if bucket.key_of(path) is None else bucket.there(path)):
        if time.monotonic() > began + SEEN_S:
            return None
        time.sleep(0.2)
    return time.monotonic() - began


def dataset(folder: str) -> dict[str, Any]:
    """Fingerprint, number of images and a digest of some of them spread over all; or why it cannot be opened."""
    try:
        bucket.fetch_whole(Path(folder), WITNESS)
        packed = PackedDataset.open(folder)
    except (InputError, OSError) as e:
        return {"error": str(e)}
    digest = hashlib.blake2b(digest_size=8)
    count = len(packed.manifest)
    for row in sorted({i * (count - 1) // (SAMPLE - 1) for i in range(SAMPLE)}) if count else []:
        digest.update(packed.pixels[row].tobytes())
    return {"fingerprint": packed.fingerprint, "images": count, "sample": digest.hexdigest()}
