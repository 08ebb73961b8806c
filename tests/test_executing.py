"""One recorded run under faults: cut off between any two writes, on a full disk, under a clock that jumps."""

from __future__ import annotations

import itertools
import resource
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from marginlab import executing, files, runs
from marginlab.executing import execute
from marginlab.results import step_seconds
from marginlab.runs import RunFolder
from marginlab.stopping import Stopped
from tests.tiny import timeless, tiny_data, tiny_run


class Packed:
    """A packed dataset in memory."""

    mean, std, channels = (0.5,), (0.25,), 1

    @classmethod
    def open(cls, folder: Path) -> Packed:
        return cls()

    def require(self, fingerprint: str) -> None:
        pass

    def fold(self, index: int) -> Any:
        return tiny_data()

    def test(self) -> Any:
        return tiny_data(seed=1).validation


@pytest.fixture(autouse=True)
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executing, "PackedDataset", Packed)
    torch.set_num_threads(1)


def begin(path: Path) -> Path:
    return RunFolder.create(path, tiny_run(), {"kind": "confirmation"}).path


def train(path: Path, **kwargs: Any) -> Any:
    return execute(path, path, lambda epoch, row: True, open_test=True, device=torch.device("cpu"), **kwargs)


def story(path: Path) -> Any:
    folder = RunFolder.open(path)
    result = {k: v for k, v in (folder.result() or {}).items() if k != "time"}
    weights, epoch = folder.best_weights()
    return (
        [timeless(r) for r in folder.epochs()],
        result,
        {k: v.tolist() for k, v in weights.items()},
        epoch,
        {k: v.tolist() for k, v in (folder.checkpoint() or {}).items()},
        [folder.embeddings(part)["embedding"].to_list() for part in ("validation", "test")],  # type: ignore[index]
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = begin(tmp_path_factory.mktemp("runs") / "quiet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executing, "PackedDataset", Packed)
        torch.set_num_threads(1)
        train(path)
    return story(path)


class Crash(BaseException):
    """The process is gone: nothing catches it."""


def test_cut_off_before_and_after_every_write(
    tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each life of the run ends one write later than the one before; every write is one once before, once after."""
    fuse = {"left": 0, "after": False}

    def fused(write: Any) -> Any:
        def writing(*args: Any) -> None:
            if fuse["left"] == 0 and not fuse["after"]:
                raise Crash
            write(*args)
            if fuse["left"] == 0:
                raise Crash
            fuse["left"] -= 1

        return writing

    for module, name in itertools.product(
        (runs, executing), ("write_bytes", "write_text", "write_json", "append_line", "rename")
    ):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, fused(getattr(files, name)))
    crashes = 0
    for after in (False, True):
        for life in range(1, 100):
            path = begin_unfused(tmp_path / f"{after}-{life}", fuse)
            fuse |= {"left": life - 1, "after": after}
            try:
                train(path)
                break
            except Crash:
                crashes += 1
            fuse["left"] = 10_000
            train(path)
            assert story(path) == undisturbed, f"cut off {'after' if after else 'before'} write {life}"
    assert crashes >= 2 * 15


def begin_unfused(path: Path, fuse: dict[str, Any]) -> Path:
    fuse["left"] = 10_000
    return begin(path)


def test_a_disk_that_is_full_for_a_while(tmp_path: Path, undisturbed: Any) -> None:
    path, (soft, hard) = begin(tmp_path / "run"), resource.getrlimit(resource.RLIMIT_FSIZE)
    waits = []

    def full_from_now(*_: Any) -> bool:
        """From the end of this epoch on no file can grow beyond 1 kB, for a moment: writes are cut in the middle."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        threading.Timer(0.5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))).start()
        waits.append(time.monotonic())
        return True

    try:
        execute(path, path, full_from_now, open_test=True, device=torch.device("cpu"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(waits) == 3 and time.monotonic() - waits[0] > 1.5
    assert story(path) == undisturbed
    assert not [p for p in path.rglob(".*") if p.is_file()]


def test_a_clock_that_jumps(tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle([1e9, -1e9, 3600.0, -7200.0, 0.0])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    path = begin(tmp_path / "run")
    train(path)
    assert story(path) == undisturbed
    assert all(0 <= v < 60 for row in RunFolder.open(path).epochs() for v in step_seconds(row).values())


def test_asked_to_stop_it_ends_between_two_epochs_and_goes_on_later(tmp_path: Path, undisturbed: Any) -> None:
    path = begin(tmp_path / "run")
    for epoch in range(3):  # before the first epoch, after it, after the second
        with pytest.raises(Stopped):
            train(path, stop=lambda: len(RunFolder.open(path).epochs()) > epoch)  # noqa: B023
        assert RunFolder.open(path).result() is None
    assert [r["epoch"] for r in RunFolder.open(path).epochs()] == [0, 1, 2]
    train(path)
    assert story(path) == undisturbed
