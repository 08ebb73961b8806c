"""A GPU that fails: told from runs that fail. There is none here: its errors are raised by the loss."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from marginlab.cluster.device import DeviceFails, of_device, require
from marginlab.cluster.group import run_one
from marginlab.data.phantom import OaiPhantom
from marginlab.losses import AdaTriplet, LossTerms, Pairs
from marginlab.margins import Margin
from marginlab.runs import ATTEMPTS, RunFolder
from marginlab.study import Dataset
from marginlab.training import Run
from marginlab.values import value
from marginlab.workspace import Workspace
from tests.cluster.studies import tiny

CPU = torch.device("cpu")
ILLEGAL = "CUDA error: an illegal memory access was encountered"


@value
class Disordered:
    """A loss that leaves the GPU in disorder."""

    slots: ClassVar[tuple[str, ...]] = ("epsilon", "beta")

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        raise torch.AcceleratorError(ILLEGAL)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    dataset = Dataset("oai", phantom=OaiPhantom(subjects=40, size=36), size=36)
    return Workspace.at(tmp_path_factory.mktemp("w")).prepare(dataset, lambda *_: None)


def folder_of(packed: Any, study: Path, loss: Any = None) -> RunFolder:
    training = dataclasses.replace(tiny, epochs=1, loss=loss or AdaTriplet())
    run = Run("oai", packed.fingerprint, training, 0, 1)
    return RunFolder.create(study / "runs" / "one", run, {"kind": "trial"})


def train(path: Path, packed: Any) -> Any:
    study = path.parents[1]
    ask = {"session": "s", "study": str(study)}
    return run_one(path, {"oai": str(packed.folder)}, lambda epoch, row: True, ask, CPU)


def test_what_leaves_a_gpu_in_disorder_ends_its_process_and_at_last_the_run(packed: Any, tmp_path: Path) -> None:
    folder = folder_of(packed, tmp_path, Disordered())
    for _ in range(ATTEMPTS):
        with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
            train(folder.path, packed)
    result = train(folder.path, packed)
    assert result["state"] == "failed"
    assert result["reason"] == f"It ended its processes {ATTEMPTS} times, last with torch.AcceleratorError: {ILLEGAL}."


@pytest.mark.skipif(torch.cuda.is_available(), reason="its GPU answers")
def test_a_gpu_that_is_not_there_is_nobodys_run(packed: Any, tmp_path: Path) -> None:
    folder = folder_of(packed, tmp_path)
    with pytest.raises(DeviceFails, match="cuda does nothing any more"):
        run_one(folder.path, {}, lambda *_: True, {"session": "s", "study": str(tmp_path)}, torch.device("cuda"))
    assert folder.result() is None and not folder.begun
    require(CPU)


@pytest.mark.parametrize(
    ("error", "of"),
    [
        (torch.AcceleratorError(ILLEGAL), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), False),
        (RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu"), False),
        (ValueError("CUDA"), False),
    ],
)
def test_what_is_a_gpus_fault(error: Exception, of: bool) -> None:
    assert of_device(error) is of


def test_storage_that_is_not_mounted_yet_is_waited_for(packed: Any, tmp_path: Path) -> None:
    folder = folder_of(packed, tmp_path / "study")
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    mount = threading.Timer(0.5, lambda: shutil.move(tmp_path / "elsewhere", tmp_path / "study"))
    mount.start()
    assert train(folder.path, packed)["state"] == "complete"
