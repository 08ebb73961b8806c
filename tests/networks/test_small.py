from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import marginlab
from marginlab.networks import SmallNetwork, build_seeded
from marginlab.networks.small import Centre
from marginlab.values import InputError

torch.set_num_threads(1)


def test_embeddings_are_unit_float32_and_every_parameter_gets_a_gradient():
    network = build_seeded(SmallNetwork(width=16, dim=24), channels=1, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(torch.rand(5, 1, 64, 64))
    assert out.dtype == torch.float32
    assert out.shape == (5, 24)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(5))
    (out @ out.T).tril(-1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_trained_network_does_not_look_at_the_batch():
    network = build_seeded(SmallNetwork(), channels=2, seed=0)
    x = torch.rand(6, 2, 40, 40)
    network(x)  # one step of training, from which the running mean knows the batch
    network.eval()
    torch.testing.assert_close(network(x)[:2], network(x[:2]), atol=1e-6, rtol=0)


def test_the_centre_is_the_batch_mean_and_then_a_running_one():
    centre, x = Centre(3), torch.randn(5, 3)
    y = torch.randn(5, 3)
    torch.testing.assert_close(centre(x), x - x.mean(0))
    torch.testing.assert_close(centre(y), y - y.mean(0))
    torch.testing.assert_close(centre.mean, (x.mean(0) + y.mean(0)) / 2)  # the plain mean of the first ten batches
    centre.eval()
    torch.testing.assert_close(centre(x), x - (x.mean(0) + y.mean(0)) / 2)


def test_the_seed_alone_decides_and_the_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a = build_seeded(SmallNetwork(), 1, seed=3).state_dict()
    torch.testing.assert_close(torch.rand(3), expected, atol=0, rtol=0)
    b, c = (build_seeded(SmallNetwork(), 1, seed=s).state_dict() for s in (3, 4))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["0.weight"], c["0.weight"])


def test_a_built_network_pickles():
    network = build_seeded(SmallNetwork(), 1, seed=0)
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(pickle.loads(pickle.dumps(network))(x), network(x))


def test_building_it_imports_torch_and_numpy_alone():
    code = (
        "import sys; from marginlab.networks import *; import marginlab.augment, marginlab.retrieval, marginlab.data.sampler; "
        "ResNet18(); DenseNet121(); build_seeded(SmallNetwork(), 1, 0); build_seeded(MirrorAttention(), 1, 0); "
        "heavy = {'monai', 'mlflow', 'ray', 'polars', 'pydantic', 'scipy', 'optuna'} & set(sys.modules); assert not heavy, heavy"
    )
    path = str(Path(marginlab.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path}, timeout=120)


@pytest.mark.parametrize("wrong", [{"width": 12}, {"width": 0}, {"dim": 0}])
def test_refusals(wrong):
    with pytest.raises(InputError, match="must be"):
        SmallNetwork(**wrong)
