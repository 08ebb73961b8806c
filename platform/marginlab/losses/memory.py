"""Cross-batch memory: a loss of pytorch-metric-learning between a batch and the embeddings of the batches before it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marginlab.losses.library import Adapter, LibraryLoss, PairwiseLoss
from marginlab.losses.pairwise import Contrastive
from marginlab.values import InputError, value


@value
class CrossBatchMemory(LibraryLoss):
    """``loss`` (with its miner) between the batch and the last ``size`` embeddings, the batch's own among them.

    Memory carries no gradient, and an image is not compared with itself in the same batch. Wang et al., CVPR 2020, arXiv
    1912.06798: the released configuration has 8192 embeddings, and adds the loss on the batch alone and starts the memory
    after 2000 steps; the library does neither. The memory is in the checkpoint, and alike on every rank.
    """

    loss: Any = Contrastive()
    size: int = 8192  # embeddings; at least a batch
    above_zero: ClassVar[tuple[str, ...]] = ("size",)

    def check(self) -> None:
        LibraryLoss.check(self)
        if not (isinstance(self.loss, PairwiseLoss) and self.loss.remembers):
            raise InputError(
                f"CrossBatchMemory.loss cannot be {self.loss}: the library has a memory for Contrastive, LiftedStructure, "
                "GeneralizedLiftedStructure, MultiSimilarity, Circle, SupCon and NTXent."
            )

    def check_batch(self, batch_size: int) -> None:
        if batch_size > self.size:
            raise InputError(f"CrossBatchMemory.size is {self.size}, less than a batch ({batch_size}): enlarge it.")

    def build(self, classes: int, dim: int) -> nn.Module:
        from pytorch_metric_learning.losses import CrossBatchMemory as Memory

        return _Remembering(Memory(self.loss.criterion(), dim, memory_size=self.size, miner=self.loss.miner()))


class _Remembering(Adapter):
    """The library keeps its place in the memory outside its state dict; it belongs to the state of a run."""

    def get_extra_state(self) -> Tensor:
        """int64 [2]: where the next batch is written, and whether the memory has been full."""
        return torch.tensor([self.module.queue_idx, self.module.has_been_filled])

    def set_extra_state(self, state: Tensor) -> None:
        place, filled = state.tolist()
        self.module.queue_idx, self.module.has_been_filled = place, bool(filled)  # type: ignore[assignment]
