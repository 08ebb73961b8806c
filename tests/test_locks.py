"""The locks hold everything that the project asks for, in versions that it allows, with hashes; the CPU lock brings no CUDA."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
DISTRIBUTION = {"PIL": "pillow", "sklearn": "scikit-learn"}  # where it is not called as what is imported
COMES_WITH = {
    "markupsafe": "jinja2",
    "requests": "mlflow",
    "sqlalchemy": "mlflow",
}  # part of what their dependents offer
CUDA = re.compile(r"(nvidia-|cuda-|triton)")
both = pytest.mark.parametrize("lock", ["cpu", "gpu"])


def lines(name: str) -> list[str]:
    """A requirement each, with its hashes."""
    text = (ROOT / "locks" / f"{name}.txt").read_text().replace("\\\n", " ")
    return [line.split("#")[0].strip() for line in text.splitlines() if line.split("#")[0].strip()]


def locked(lock: str) -> list[Requirement]:
    """All that an installation gets: for CPUs, PyTorch is in a file of its own."""
    own = lines("cpu-torch") if lock == "cpu" else []
    return [Requirement(line.split("--hash")[0].strip()) for line in lines(lock) + own]


def applies(marker: Marker | None, python: str) -> bool:
    return marker is None or marker.evaluate({"python_version": python, "python_full_version": f"{python}.0"})


@both
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_dependency_is_pinned_once_in_a_version_that_is_allowed(lock: str, python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins: dict[str, list[str]] = {}
    for r in locked(lock):
        if applies(r.marker, python):
            pins.setdefault(canonicalize_name(r.name), []).append(str(r.specifier).removeprefix("=="))
    assert {n: v for n, v in pins.items() if len(v) > 1} == {}
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        [version] = pins[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), f"{text} is locked as {version}: run make locks"


@both
def test_everything_is_pinned_exactly_and_no_place_is_named(lock: str) -> None:
    assert all(re.fullmatch(r"==[^*,]+", str(r.specifier)) and r.url is None for r in locked(lock))
    assert not re.search(r"https?://|file://|^-", (ROOT / "locks" / f"{lock}.txt").read_text(), re.M)


@both
def test_everything_has_hashes_but_pytorch_for_cpus(lock: str) -> None:
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", line) for line in lines(lock))
    assert [re.match(r"[\w-]+", line)[0] for line in lines("cpu-torch")] == ["torch"]  # type: ignore[index]
    assert not any(line.startswith("torch==") for line in lines("cpu"))


def test_the_cpu_lock_is_the_gpu_lock_without_cuda() -> None:
    cpu, gpu = ({str(r) for r in locked(lock)} for lock in ("cpu", "gpu"))
    assert gpu - cpu == {r for r in gpu if CUDA.match(r)} != set()
    assert cpu <= gpu


def test_the_package_imports_nothing_that_is_not_declared() -> None:
    imported: dict[str, str] = {}
    for path in sorted((ROOT / "platform" / "marginlab").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            imported |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    ours = {*sys.stdlib_module_names, "marginlab"}
    known = {n for n in imported if canonicalize_name(DISTRIBUTION.get(n, COMES_WITH.get(n, n))) in declared}
    assert {name: path for name, path in imported.items() if name not in ours | known} == {}
