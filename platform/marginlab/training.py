"""``fit``: one run from its first epoch to its last, the same on a laptop, in a Tune trial and on every rank of a worker group.

Torch and numpy alone. The only way out is ``report(epoch, metrics, state)``; its answer says whether to go on. Epoch 0 is the
untrained network, epoch k the network after k epochs. Everything random is a function of (seed, epoch, batch), so that a
checkpoint holds neither sampler nor generators: they follow from its place.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from marginlab import distributed
from marginlab.accumulation import Chunked, check_chunk
from marginlab.augment import Augment
from marginlab.clock import Clock
from marginlab.data.feeding import Feed
from marginlab.data.sampler import batches
from marginlab.data.subset import Data, Subset
from marginlab.losses import AdaTriplet, Pairs
from marginlab.losses import build_seeded as build_loss
from marginlab.margins import AutoMargin, Margin, Statistics, fits, observe
from marginlab.networks import SmallNetwork, build_seeded
from marginlab.networks.parts import cut
from marginlab.partway import Between, Partway
from marginlab.precision import forward
from marginlab.pulse import PULSE
from marginlab.retrieval import validation_scores
from marginlab.values import InputError, fingerprint, stable_seed, value


@value
class Training:
    """How one network is trained. Defaults are the published ones, but for the network (Nguyen et al. 2022, config.yml)."""

    loss: Any = AdaTriplet()
    margin: Any = AutoMargin()
    network: Any = SmallNetwork()
    augment: Augment = Augment()
    epochs: int = 100
    batch_size: int = 128  # over all ranks
    per_identity: int | None = 4  # images per identity in a batch; None: shuffled images, whoever they are of
    lr: float = 1e-4
    weight_decay: float = 1e-4  # Adam's, as published

    def check(self) -> None:
        fits(self.loss, self.margin)
        for name in ("epochs", "batch_size", *(["per_identity"] if self.per_identity is not None else [])):
            if getattr(self, name) < 1:
                raise InputError(f"Training.{name} must be at least 1, not {getattr(self, name)}.")
        if self.lr <= 0:
            raise InputError(f"Training.lr must be above 0, not {self.lr}.")
        if self.per_identity is not None and self.batch_size % self.per_identity:
            raise InputError(
                f"Training.batch_size ({self.batch_size}) must be a multiple of per_identity ({self.per_identity})."
            )
        if hasattr(self.loss, "check_batch"):  # a loss may refuse batches of a size that it cannot work with
            self.loss.check_batch(self.batch_size)


@value
class Run:
    """One training: configuration x fold x seed on one dataset. The unit that is scheduled, recorded and replayed."""

    dataset: str
    data: str  # fingerprint of the packed dataset
    training: Training
    fold: int
    seed: int

    @property
    def id(self) -> str:
        return fingerprint([self.data, self.training, self.fold, self.seed])


class TrainingFailed(RuntimeError):
    """The run cannot go on and would not on another machine either. The message says why, in a sentence."""


@dataclass(frozen=True)
class State:
    """A run at the end of an epoch. The tensors are live: whoever keeps them writes or copies them before returning."""

    epoch: int
    network: nn.Module
    optimizer: torch.optim.Optimizer
    margin: Margin  # of the next batch, with what the policy remembers
    embeddings: Tensor  # [n, D] float32 on the CPU, of the validation images
    subset: Subset  # the validation images
    loss: nn.Module | None = None  # what the loss carries from batch to batch, where it does

    def weights(self) -> dict[str, Tensor]:
        return {k: v.detach() for k, v in self.network.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """All that :func:`fit` needs to go on after this epoch, as one flat mapping."""
        return _tensors(self.epoch, self.network, self.optimizer, self.margin, self.loss)


def _tensors(
    epoch: int, network: nn.Module, optimizer: torch.optim.Optimizer, margin: Margin, loss: nn.Module | None
) -> dict[str, Tensor]:
    out = {f"network/{k}": v.detach() for k, v in network.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        out |= {f"optimizer/{index}/{name}": torch.as_tensor(v) for name, v in slots.items()}
    if loss is not None:
        out |= {f"loss/{k}": v.detach() for k, v in loss.state_dict().items()}
    out |= {f"margin/{name}": x for name, x in margin.tensors().items()}
    out["epoch"] = torch.tensor(epoch)
    return out


Report = Callable[[int, dict[str, float], State], bool]


def fit(
    run: Run,
    data: Data,
    report: Report,
    *,
    resume: dict[str, Tensor] | None = None,
    device: torch.device | str | None = None,
    cache: str = "auto",
    chunk: int | None = None,
    between: Between | None = None,
) -> None:
    """Train one run and report after every epoch.

    Args:
        run: what to train. The fold and dataset it names must be those of ``data``.
        report: called on rank 0 after every epoch (and before the first, as epoch 0); False ends the run, on all ranks.
        resume: the ``tensors()`` of a :class:`State`; training goes on with the epoch after it. Or what ``between`` was
            offered; it goes on within that epoch.
        device: where to train; by default a GPU where there is one.
        cache: where pixels wait for a GPU (:class:`marginlab.data.feeding.Feed`). The same numbers whatever it is.
        chunk: images of a rank that are in the network at once, with the loss over the whole batch all the same
            (:mod:`marginlab.accumulation`), and with batch normalisation over the whole share of the rank, or, on GPUs,
            over the whole batch. The numbers of a step without it, up to rounding; of networks with dropout, others.
        between: called on rank 0 between two batches of an epoch, with what ``resume`` takes.

    Raises:
        TrainingFailed: the loss stopped being a finite number.
        InputError: ``chunk`` with a network that cannot be cut (:func:`marginlab.networks.parts.cut`).
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    trainer = _Trainer(run, data, device, cache, chunk, between)
    if resume is None:
        margin, done, so_far = run.training.margin.start(), 0, Partway()
        if not trainer.report(report, 0, {}, margin):
            return
    else:
        margin, done, so_far = trainer.restore(resume)
    for epoch in range(done + 1, run.training.epochs + 1):
        metrics, statistics, margin = trainer.train_epoch(epoch, margin, so_far)
        so_far = Partway()
        margin = run.training.margin.after_epoch(margin, statistics)
        if not trainer.report(report, epoch, metrics, margin):
            return


class _Trainer:
    def __init__(
        self,
        run: Run,
        data: Data,
        device: torch.device,
        cache: str = "auto",
        chunk: int | None = None,
        between: Between | None = None,
    ) -> None:
        check_chunk("chunk", chunk)
        self.between = between if distributed.rank() == 0 else None
        self.run, self.training, self.data, self.device = run, run.training, data, device
        self.network = build_seeded(self.training.network, data.channels, run.seed).to(device)
        self.format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.network.to(memory_format=self.format)  # type: ignore[call-overload]
        world = distributed.world()
        if world > 1 and device.type == "cuda":  # normalise by the global batch; on a CPU there is no such thing
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        divided = chunk is not None and chunk < self.training.batch_size // world
        self.chunked = Chunked(cut(self.network.train()), chunk) if divided and chunk else None
        self.parallel: nn.Module = self.network
        if world > 1 and self.chunked is None:
            ids = [device.index or 0] if device.type == "cuda" else None
            self.parallel = nn.parallel.DistributedDataParallel(self.network, device_ids=ids)
        if not _has_matches(data.validation):
            raise TrainingFailed("No validation image has a match from another visit: there is nothing to select by.")
        self.loss = self._build_loss()
        self.carried = self.loss if isinstance(self.loss, nn.Module) else None
        groups: list[dict[str, Any]] = [{"params": list(self.network.parameters())}]
        self.proxies = list(self.carried.parameters()) if self.carried is not None else []
        if self.proxies:
            lr = self.training.lr * getattr(self.training.loss, "lr_factor", 1.0)
            groups.append({"params": self.proxies, "lr": lr})
        self.optimizer = torch.optim.Adam(groups, lr=self.training.lr, weight_decay=self.training.weight_decay)
        self.clock = Clock(device)
        self.train_feed = Feed(data.train, device, cache)
        self.validation_feed = Feed(data.validation, device, cache)

    @torch.no_grad()
    def _build_loss(self) -> Any:
        if not hasattr(self.training.loss, "build"):
            return self.training.loss
        side = self.training.augment.crop
        blank = torch.zeros(1, self.data.channels, side, side, device=self.device)
        classes = int(self.data.train.label.max()) + 1
        return build_loss(self.training.loss, classes, forward(self.network.eval(), blank), self.run.seed)

    def restore(self, tensors: dict[str, Tensor]) -> tuple[Margin, int, Partway]:
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimizer": {}, "loss": {}, "margin": {}}
        for key, tensor in tensors.items():
            head, _, rest = key.partition("/")
            if head in parts:
                parts[head][rest] = tensor
        self.network.load_state_dict(parts["network"])
        if self.carried is not None:
            self.carried.load_state_dict(parts["loss"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in parts["optimizer"].items():
            index, name = key.split("/")
            state.setdefault(int(index), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        margin = parts["margin"]
        so_far = Partway.of(tensors, self.device)
        return Margin(margin.pop("epsilon"), margin.pop("beta"), margin), int(tensors["epoch"]), so_far

    def train_epoch(
        self, epoch: int, margin: Margin, so_far: Partway | None = None
    ) -> tuple[dict[str, float], Statistics, Margin]:
        """The epoch's metrics and statistics, and the margin after its last batch: the one given, unless the policy has
        ``after_batch``. The metrics have the margin of the last batch.

        so_far: what has been trained of the epoch.
        """
        so_far = so_far or Partway()
        self.clock.add(so_far.seconds)
        began = time.perf_counter() - so_far.seconds.get("elapsed", 0.0)
        t, train, world, rank = self.training, self.data.train, distributed.world(), distributed.rank()
        seed = self.run.seed
        plan = batches(
            train.label,
            seed=seed,
            epoch=epoch,
            batch_size=t.batch_size,
            per_identity=t.per_identity,
            rank=rank,
            world=world,
        )
        labels = torch.from_numpy(train.label[plan]).to(self.device)
        share = slice(rank * plan.shape[1], (rank + 1) * plan.shape[1])
        after_batch = getattr(t.margin, "after_batch", None)
        if after_batch:  # now, not in a step: a copy to a GPU makes the host wait
            margin = margin.to(self.device)
        self.network.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            feed = self.train_feed.batches(plan[so_far.step :])
            for step in range(so_far.step, len(plan)):
                PULSE.place = f"epoch {epoch}, step {step + 1} of {len(plan)}"
                torch.manual_seed(stable_seed(seed, "epoch", epoch, rank, step))  # for networks with dropout
                with self.clock.step("data"):
                    pixels = next(feed)
                    draws = torch.from_numpy(t.augment.draw(seed, epoch, step, t.batch_size)[share])
                    draws = draws.to(self.device, non_blocking=True)
                with self.clock.step("augment"):
                    images = t.augment.train(pixels, draws, self.data.mean, self.data.std)
                    images = images.contiguous(memory_format=self.format)
                with self.clock.step("forward"):
                    PULSE.reached()
                    embeddings = self.chunked.embed(images) if self.chunked else forward(self.parallel, images)
                with self.clock.step("loss"):
                    pairs = Pairs.of(embeddings, labels[step], max_positives=(t.per_identity or t.batch_size) - 1)
                    terms = self.loss(pairs, margin)
                    found = observe(t.margin, pairs, margin)
                    trained, margin = margin, after_batch(margin, found) if after_batch else margin
                with self.clock.step("backward"):
                    PULSE.reached()
                    self.optimizer.zero_grad(set_to_none=True)
                    terms.total.backward()
                    if self.chunked:
                        self.chunked.backward()
                    distributed.broadcast_gradients(self.proxies)
                    norm = torch.nn.utils.get_total_norm(
                        [p.grad for p in self.network.parameters() if p.grad is not None]
                    )
                    self.optimizer.step()
                seen = {"train/loss": terms.total, "train/grad_norm": norm}
                seen |= {f"train/loss_{k}": v for k, v in terms.parts.items()}
                seen |= {f"train/active_{k}": v for k, v in terms.active.items()}
                so_far.add(seen, found)
                if self.between is not None and so_far.step < len(plan):
                    self._offer(epoch, so_far, margin, began)
        statistics = so_far.statistics
        assert statistics is not None  # a plan has at least one batch
        metrics = {name: float(v) / len(plan) for name, v in so_far.sums.items()}
        if not math.isfinite(metrics["train/loss"]):
            raise TrainingFailed(
                f"The loss was {metrics['train/loss']} in epoch {epoch}: try a lower learning rate than {t.lr:g}."
            )
        elapsed = time.perf_counter() - began
        metrics |= {
            "train/sim_positive": float(statistics.pos_mean),
            "train/sim_negative": float(statistics.neg_mean),
            **{f"margin/{slot}": float(trained[slot]) for slot in t.margin.sets},
            "train/lr": self.optimizer.param_groups[0]["lr"],
            "time/images_per_s": len(plan) * t.batch_size / elapsed,
        }
        return metrics, statistics, margin

    def _offer(self, epoch: int, so_far: Partway, margin: Margin, began: float) -> None:
        def tensors() -> dict[str, Tensor]:
            spent = self.clock.seconds()
            self.clock.add(spent)
            so_far.seconds = {**spent, "elapsed": time.perf_counter() - began}
            return _tensors(epoch - 1, self.network, self.optimizer, margin, self.carried) | so_far.tensors()

        assert self.between is not None
        self.between(epoch, so_far.step, tensors)

    def report(self, report: Report, epoch: int, metrics: dict[str, float], margin: Margin) -> bool:
        validation, PULSE.place = self.data.validation, f"the evaluation after epoch {epoch}"
        with self.clock.step("evaluation"):
            distributed.broadcast_buffers(self.network)  # what is scored is what rank 0 saves
            mean, std = self.data.mean, self.data.std
            embeddings = embed(
                self.network, validation, self.training, mean, std, self.device, feed=self.validation_feed
            )
        if not torch.isfinite(embeddings).all():  # on every rank alike
            raise TrainingFailed(
                f"The embeddings were not finite after epoch {epoch}: try a lower learning rate than {self.training.lr:g}."
            )
        go_on = True
        if distributed.rank() == 0:
            began = time.perf_counter()
            with PULSE.alone():
                scores = validation_scores(embeddings, validation)
            spent = self.clock.seconds()
            spent["evaluation"] = spent.get("evaluation", 0.0) + time.perf_counter() - began
            metrics = {**metrics, **{f"val/{k}": v for k, v in scores.items()}}
            metrics |= {f"time/{k}_s": v for k, v in spent.items()}
            metrics = {k: v for k, v in metrics.items() if math.isfinite(v)}
            state = State(epoch, self.network, self.optimizer, margin, embeddings, validation, self.carried)
            go_on = report(epoch, metrics, state)
        return distributed.broadcast_flag(go_on)


def _has_matches(subset: Subset) -> bool:
    visits = np.unique(np.stack([subset.label, subset.visit]), axis=1)[0]
    return len(visits) > 0 and int(np.bincount(visits).max()) > 1


@torch.no_grad()
def embed(
    network: nn.Module,
    subset: Subset,
    training: Training,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    batch: int = 256,
    feed: Feed | None = None,
) -> Tensor:
    """Embeddings of all images of a subset, [n, D] float32 on the CPU of every rank; the ranks share the work.

    ``feed``: of this subset; by default one that keeps nothing on the device.
    """
    network.eval()
    world, rank = distributed.world(), distributed.rank()
    block = -(-len(subset) // world)
    # Every rank embeds as many images: the last one pads with the first image, which is cut off again.
    mine = np.arange(rank * block, (rank + 1) * block)
    mine[mine >= len(subset)] = 0
    feed = feed or Feed(subset, device, "host")
    found = []
    for images in feed.batches([mine[start : start + batch] for start in range(0, block, batch)]):
        found.append(forward(network, training.augment.evaluate(images, mean, std)))
    return distributed.gather(torch.cat(found))[: len(subset)].cpu()


PROBED_BATCHES = 2
PROBED_PIXELS = 2**20  # of a batch that is measured, at most: 16 images of 256 x 256 pixels
LONG_S = 5.0  # a warm-up batch that takes longer is itself the measurement: allocations no longer matter
RANKED_AT_MOST = 2000  # images in the ranking that is measured


@dataclass(frozen=True)
class Probe:
    """What a training costs one worker of this machine that has it to itself, in seconds."""

    batch_s: float  # per training batch
    image_s: float  # per image embedded
    pair_s: float  # per pair of images ranked: the validation of n images ranks n * n pairs


def probe(
    training: Training,
    channels: int,
    size: int,
    *,
    images: int = RANKED_AT_MOST,
    threads: int = 1,
    device: torch.device | str = "cpu",
) -> Probe:
    """Measure two batches, after one that warms up, with the loop that :func:`fit` runs, on random pixels.

    The time of one thread is the processor's: what else the machine does at this moment is not the study's.

    Args:
        channels, size: of the images as stored.
        images: in the validation; as many are ranked, but not above ``RANKED_AT_MOST``.
        threads: of the worker that it stands for; this process has its own number back afterwards.
    """
    whole, training = training.batch_size, _affordable(training, channels)
    rng = np.random.default_rng(stable_seed("probe"))
    pixels = rng.integers(0, 256, (training.batch_size, channels, size, size), dtype=np.uint8)
    train = _made_up(pixels, training.batch_size, training.per_identity or 4)  # an epoch of one batch
    validation = _made_up(pixels, max(8, min(images, RANKED_AT_MOST)), 4)
    data = Data(train, validation, (0.5,) * channels, (0.25,) * channels, "probe", channels, size)
    device = torch.device(device)
    clock = time.thread_time if threads == 1 and device.type == "cpu" else time.perf_counter

    def seconds(do: Callable[[], object]) -> float:
        began = clock()
        do()
        return clock() - began

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        trainer = _Trainer(Run("probe", "probe", training, 0, 0), data, device)
        margin, took = training.margin.start(), []
        for epoch in range(1 + PROBED_BATCHES):
            took.append(seconds(lambda e=epoch: trainer.train_epoch(e + 1, margin)))  # type: ignore[misc]
            if took[0] > LONG_S:
                break
        found: list[Tensor] = []
        embedding_s = seconds(
            lambda: found.append(embed(trainer.network, train, training, data.mean, data.std, trainer.device))
        )
        points = torch.from_numpy(rng.standard_normal((len(validation), found[0].shape[1]), dtype=np.float32))
        validation_scores(points[: len(train)], _made_up(pixels, len(points[: len(train)]), 4))  # warms up
        ranking_s = seconds(lambda: validation_scores(points, validation))
    finally:
        torch.set_num_threads(before)
    batch_s = min(took[1:] or took) * whole / training.batch_size
    return Probe(batch_s, embedding_s / len(train), ranking_s / len(validation) ** 2)


def _affordable(training: Training, channels: int) -> Training:
    """With smaller batches where large images would fill this machine's memory for a measurement: time grows as they do."""
    images = max(PROBED_PIXELS // (channels * training.augment.crop**2), 8)
    k = training.per_identity or 1
    while training.batch_size > images and training.batch_size % (2 * k) == 0 and training.batch_size // 2 >= 2 * k:
        try:
            training = dataclasses.replace(training, batch_size=training.batch_size // 2)
        except InputError:  # the loss refuses batches so small
            break
    return training


def _made_up(pixels: np.ndarray, images: int, per_label: int) -> Subset:
    """Images (the same ones again where ``pixels`` has fewer) of ``per_label`` yearly visits per label."""
    every = np.arange(images)
    months = (every % per_label * 12).astype(np.float32)
    return Subset(pixels, every % len(pixels), every // per_label, every, months, months == 0, months > 0)
