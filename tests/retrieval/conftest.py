"""Where rankings are made: on the processor, on a GPU where there is one, and on the processor by the GPU's functions."""

from __future__ import annotations

import pytest
import torch

from marginlab.retrieval import blocks, on_gpu, streaming

PLACES = ["cpu", "cpu by the functions for GPUs", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=PLACES)
def device(request, monkeypatch):
    if "functions" in request.param:
        for module in (blocks, streaming):
            monkeypatch.setattr(module, "rows_on", lambda device: on_gpu)
    return request.param.split()[0]
