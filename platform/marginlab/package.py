"""What a job brings along: the Python files of the study's repository, and MarginLab itself where it runs from a checkout.

The package's root is on the path of every process of the job, on every node. Images, tables, packed datasets and environments
stay where they are: only what is code, or was named, goes in.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import marginlab
from marginlab import bucket
from marginlab.values import InputError

LIMIT = 20 * 2**20  # bytes; Ray keeps packages in the memory of the head
NOTE = "marginlab-package.json"  # in the package's root: its digest, and the commit that it was made from
_LEFT_OUT = {"build", "dist", "node_modules", "site-packages", "workspace", "mlruns", "venv", "env"}
_OWN_DATA = (".py", ".html", ".css", ".csv")  # of MarginLab's own package


@dataclass(frozen=True)
class Package:
    """``files``: where each file lies here, by its path in the package. ``study``: the study file's path in it."""

    root: Path
    study: str
    files: dict[str, Path]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(p.stat().st_size for p in self.files.values())

    @property
    def brings_marginlab(self) -> bool:
        return "marginlab/__init__.py" in self.files

    def write(self, folder: Path, commit: str | None) -> str:
        """Copy the files; returns the digest of their names and contents."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            content = self.files[name].read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        told = digest.hexdigest()[:16]
        (folder / NOTE).write_text(json.dumps({"digest": told, "commit": commit}))
        return told


def collect(study: Path, include: Sequence[str] = ()) -> Package:
    """What goes along with a study file.

    Args:
        include: patterns of further files, relative to the repository, such as ``configs/*.json``.

    Raises:
        InputError: a pattern finds nothing, or it is too much.
    """
    study = study.resolve()
    root = _repository(study) or study.parent
    files = {study.relative_to(root).as_posix(): study}
    whole = root != study.parent or (root / ".git").exists()
    own = Path(marginlab.__file__).resolve().parent
    for path in _python(root, whole, own):
        files[path.relative_to(root).as_posix()] = path
    for pattern in include:
        try:
            found = [p for p in root.glob(pattern) if p.is_file()]
        except (NotImplementedError, ValueError):  # absolute; empty
            found = []
        if not found:
            raise InputError(f"--include {pattern}: no file of {root} fits. The pattern is relative to that folder.")
        files |= {p.relative_to(root).as_posix(): p for p in found}
    if _from_checkout(own):
        files |= {f"marginlab/{p.relative_to(own).as_posix()}": p for p in _below(own) if p.suffix in _OWN_DATA}
    package = Package(root, study.relative_to(root).as_posix(), files)
    if package.size > LIMIT:
        raise InputError(
            f"The code that would be sent is {package.size / 2**20:.0f} MB, more than {LIMIT / 2**20:.0f} MB. The largest are "
            f"{', '.join(_largest(files))}. Move what is no code out of {root}, or put the study into a smaller repository."
        )
    return package


def _largest(files: dict[str, Path]) -> list[str]:
    most = sorted(files, key=lambda n: files[n].stat().st_size, reverse=True)[:3]
    return [f"{name} ({files[name].stat().st_size / 2**20:.1f} MB)" for name in most]


def _repository(study: Path) -> Path | None:
    return next((p for p in study.parents if (p / ".git").exists()), None)


def _from_checkout(own: Path) -> bool:
    """Nodes have what is installed; they cannot have a checkout of this machine."""
    return not {"site-packages", "dist-packages"} & set(own.parts)


def _python(root: Path, whole: bool, own: Path) -> Iterator[Path]:
    """All of a repository; outside of one only what lies beside the study file: its folder may be a home."""
    found = _below(root, own) if whole else iter(sorted(root.iterdir()))
    return (p for p in found if p.suffix == ".py" and p.is_file() and not p.is_symlink())


def _below(root: Path, without: Path | None = None) -> Iterator[Path]:
    """Files, less hidden folders, environments, what was built, workspaces, and links to folders."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(n for n in folders if not _left_out(Path(folder) / n) and Path(folder) / n != without)
        yield from (Path(folder) / n for n in sorted(names))


def _left_out(folder: Path) -> bool:
    name = folder.name
    if name in _LEFT_OUT or name.startswith((".", "__pycache__")) or name.endswith(".egg-info"):
        return True
    return (folder / "pyvenv.cfg").exists() or (folder / ".locks").exists() or (folder / "mlflow.db").exists()


def keep(package: Path, workspace: Path) -> Path:
    """Copy an unpacked package into the workspace, where a later job finds it; returns its folder there."""
    digest = json.loads((package / NOTE).read_text())["digest"]
    kept = kept_at(workspace, digest)
    if package.resolve() != kept.resolve() and not kept.exists():
        partial = kept.with_name(f"{digest}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(package, partial, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            partial.rename(kept)
        except OSError:  # another job was faster
            shutil.rmtree(partial, ignore_errors=True)
        for path in sorted(p for p in kept.rglob("*") if p.is_file()):
            bucket.send(path)
    return kept


def kept_at(workspace: Path, digest: str) -> Path:
    return workspace / "packages" / digest
