import dataclasses
import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from marginlab import training
from marginlab.augment import Augment
from marginlab.data.sampler import batches
from marginlab.losses import AdaTriplet, Pairs
from marginlab.margins import AutoMargin, FixedMargin, Margin
from marginlab.networks import build_seeded
from marginlab.training import TrainingFailed, fit, probe
from marginlab.values import InputError
from tests.tiny import TRAINING, Keep, timeless, tiny_data, tiny_run


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_reports_the_untrained_network_and_then_every_epoch() -> None:
    seen = Keep()
    fit(tiny_run(), tiny_data(), seen, device="cpu")
    assert [r["epoch"] for r in seen.rows] == [0, 1, 2, 3]
    assert "train/loss" not in seen.rows[0] and 0 < seen.rows[0]["val/map"] < 1
    first = seen.rows[1]
    expected = [
        "train/loss",
        "train/loss_triplet",
        "train/loss_pair",
        "train/active_triplet",
        "train/active_pair",
        "train/sim_positive",
        "train/sim_negative",
        "train/grad_norm",
        "train/lr",
        "margin/epsilon",
        "margin/beta",
        "val/map",
        "val/cmc_1",
        "time/data_s",
        "time/augment_s",
        "time/forward_s",
        "time/loss_s",
        "time/backward_s",
        "time/evaluation_s",
        "time/images_per_s",
    ]
    assert [k for k in expected if k not in first] == []
    assert first["margin/epsilon"] == 0.25 and first["margin/beta"] == 0.0 and first["train/lr"] == 1e-3
    assert seen.rows[-1]["val/map"] > seen.rows[0]["val/map"]


def test_training_learns_what_a_plain_loop_learns() -> None:
    """Against the same epoch written out: sampler, augmentation, network, loss, Adam."""
    run, data = tiny_run(epochs=1, margin=FixedMargin()), tiny_data()
    seen = Keep()
    fit(run, data, seen, device="cpu")
    t = run.training
    network = build_seeded(t.network, 1, run.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=t.lr, weight_decay=t.weight_decay)
    plan = batches(data.train.label, seed=run.seed, epoch=1, batch_size=32, per_identity=4)
    losses = []
    for step, positions in enumerate(plan):
        pixels = torch.from_numpy(data.train.pixels[data.train.rows[positions]])
        draws = torch.from_numpy(t.augment.draw(run.seed, 1, step, 32))
        x = network(t.augment.train(pixels, draws, data.mean, data.std))
        terms = AdaTriplet()(Pairs.of(x, torch.from_numpy(data.train.label[positions])), FixedMargin().start())
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        losses.append(float(terms.total.detach()))
    assert seen.rows[1]["train/loss"] == sum(losses) / len(losses)
    for name, weight in network.state_dict().items():
        assert torch.equal(seen.states[1][f"network/{name}"], weight), name


def test_automargin_moves_by_its_rule() -> None:
    seen = Keep()
    fit(tiny_run(margin=AutoMargin(k_delta=2, k_an=4)), tiny_data(), seen, device="cpu")
    for before, after in zip(seen.rows[1:], seen.rows[2:], strict=False):
        # In balanced P x K batches the mean gap over triplets is the difference of the mean similarities.
        gap = before["train/sim_positive"] - before["train/sim_negative"]
        assert after["margin/epsilon"] == pytest.approx(max(0, gap / 2), abs=1e-9)
        assert after["margin/beta"] == pytest.approx(1 + (before["train/sim_negative"] - 1) / 4, abs=1e-9)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_run_resumed_after_any_epoch_is_the_same_bit_for_bit(epoch: int) -> None:
    run, data = tiny_run(), tiny_data()
    whole, first, rest = Keep(), Keep(stop=epoch), Keep()
    fit(run, data, whole, device="cpu")
    fit(run, data, first, device="cpu")
    assert len(first.rows) == epoch + 1
    fit(run, data, rest, resume=first.states[-1], device="cpu")
    assert [timeless(r) for r in first.rows + rest.rows] == [timeless(r) for r in whole.rows]
    assert same(rest.states[-1], whole.states[-1])


def test_the_seed_decides_and_torchs_global_generator_does_not() -> None:
    results = []
    for global_seed, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        seen = Keep()
        fit(tiny_run(seed=seed, epochs=1), tiny_data(), seen, device="cpu")
        assert torch.equal(torch.get_rng_state(), before)  # and is left as it was
        results.append(seen.states[-1])
    assert same(results[0], results[1]) and not same(results[0], results[2])


def test_a_loss_that_is_no_number_ends_the_run_in_a_sentence() -> None:
    with pytest.raises(
        TrainingFailed, match=r"The loss was (nan|inf) in epoch 1: try a lower learning rate than 1e\+30"
    ):
        fit(tiny_run(lr=1e30), tiny_data(), Keep(), device="cpu")


def test_fit_needs_torch_and_numpy_alone() -> None:
    """In a process where everything else that MarginLab uses cannot be imported."""
    code = textwrap.dedent("""
        import sys
        for name in "ray mlflow optuna polars pyarrow pydantic monai safetensors scipy sklearn PIL pandas rich typer pytorch_metric_learning".split():
            sys.modules[name] = None  # as if it were not installed
        import torch
        torch.set_num_threads(1)
        from tests.tiny import Keep, tiny_data, tiny_run
        from marginlab.training import fit
        seen = Keep()
        fit(tiny_run(epochs=1), tiny_data(), seen, device="cpu")
        print(seen.rows[-1]["val/map"])
    """)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": "platform:."})
    assert out.returncode == 0, out.stderr
    assert 0 < float(out.stdout) <= 1


def test_importing_marginlab_and_training_loads_neither_ray_nor_mlflow_nor_monai() -> None:
    code = (
        "import sys, marginlab, marginlab.executing, marginlab.runs, marginlab.study;"
        "print([m for m in ('ray', 'mlflow', 'monai', 'pytorch_metric_learning') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": "platform"}
    )
    assert out.stdout.strip() == "[]"


def test_defaults_are_the_published_ones() -> None:
    from marginlab.training import Training

    t = Training()
    assert (t.epochs, t.batch_size, t.per_identity, t.lr, t.weight_decay) == (100, 128, 4, 1e-4, 1e-4)
    assert TRAINING.loss == AdaTriplet(lam=1.0, mining="semihard") and TRAINING.margin == AutoMargin(2, 2, 0.25, 0.0)


def test_a_probe_measures_and_leaves_the_process_as_it_was() -> None:
    torch.manual_seed(7)
    before, array_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.set_num_threads(2)
    found = probe(TRAINING, 1, 36, images=40, threads=1)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), before) and (np.random.get_state()[1] == array_state).all()
    assert all(math.isfinite(v) and v > 0 for v in dataclasses.astuple(found))
    assert found.image_s < found.batch_s  # an image embedded costs less than a batch of them trained


def test_a_probe_trains_the_real_loop_on_batches_of_the_right_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    from marginlab import training

    trained: list[tuple[tuple[int, ...], int]] = []
    forward = training.forward

    def spy(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        if network.training:
            trained.append((tuple(images.shape), torch.get_num_threads()))
        return forward(network, images)

    monkeypatch.setattr(training, "forward", spy)
    for identities in (1, 4):
        trained.clear()
        probe(dataclasses.replace(TRAINING, per_identity=identities), 3, 40, images=20, threads=2)
        assert trained == [((32, 3, 32, 32), 2)] * 3  # one that warms up, and two


def test_a_slow_batch_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from marginlab import training

    epochs: list[int] = []
    train_epoch = training._Trainer.train_epoch

    def spy(self: training._Trainer, epoch: int, margin: Margin) -> object:
        epochs.append(epoch)
        return train_epoch(self, epoch, margin)

    monkeypatch.setattr(training._Trainer, "train_epoch", spy)
    monkeypatch.setattr(training, "LONG_S", 0.0)
    assert probe(TRAINING, 1, 36, images=20).batch_s > 0 and epochs == [1]


def test_large_images_are_probed_in_small_batches() -> None:
    big = dataclasses.replace(TRAINING, batch_size=128, per_identity=4, augment=Augment(crop=256))
    assert [training._affordable(big, c).batch_size for c in (1, 3)] == [16, 8]  # two people at least
    assert training._affordable(dataclasses.replace(big, per_identity=None), 3).batch_size == 8
    assert training._affordable(dataclasses.replace(big, batch_size=96, per_identity=32), 1).batch_size == 96
    assert training._affordable(dataclasses.replace(TRAINING, batch_size=128), 1).batch_size == 128


def test_threads_come_back_when_a_probe_fails() -> None:
    torch.set_num_threads(2)
    with pytest.raises(InputError, match="Augment.crop is 32, but the images are 30 x 30"):
        probe(TRAINING, 1, 30, threads=1)
    assert torch.get_num_threads() == 2
