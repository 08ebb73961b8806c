from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from marginlab.networks import DenseNet121, build_seeded
from marginlab.networks.densenet import load_torchvision, monai_name
from marginlab.values import InputError

torch.set_num_threads(1)

BLOCKS, GROWTH = (6, 12, 24, 16), 32


def torchvision_state(dot=".", channels=3, classes=1000, counters=False):
    """Random tensors under torchvision's names and shapes; ``dot`` as in the published file, "" as in a saved model."""
    g = torch.Generator().manual_seed(0)
    state = {}

    def conv(name, outputs, inputs, kernel):
        fan = inputs * kernel * kernel
        state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=g) * (2 / fan) ** 0.5

    def norm(name, planes):
        state[f"{name}.weight"] = 0.5 + torch.rand(planes, generator=g)
        state[f"{name}.bias"] = 0.2 * torch.randn(planes, generator=g)
        state[f"{name}.running_mean"] = 0.2 * torch.randn(planes, generator=g)
        state[f"{name}.running_var"] = 0.5 + torch.rand(planes, generator=g)
        if counters:
            state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("features.conv0", 64, channels, 7)
    norm("features.norm0", 64)
    planes = 64
    for block, layers in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            at = f"features.denseblock{block}.denselayer{layer}"
            norm(f"{at}.norm{dot}1", planes)
            conv(f"{at}.conv{dot}1", 4 * GROWTH, planes, 1)
            norm(f"{at}.norm{dot}2", 4 * GROWTH)
            conv(f"{at}.conv{dot}2", GROWTH, 4 * GROWTH, 3)
            planes += GROWTH
        if block < len(BLOCKS):
            norm(f"features.transition{block}.norm", planes)
            conv(f"features.transition{block}.conv", planes // 2, planes, 1)
            planes //= 2
    norm("features.norm5", planes)
    state["classifier.weight"] = torch.randn(classes, planes, generator=g) * 0.03
    state["classifier.bias"] = torch.randn(classes, generator=g) * 0.03
    return state


def oracle(x, s, dot="."):
    """torchvision's DenseNet-121 in evaluation mode, written out, up to the last feature map after its ReLU."""

    def active(x, at):
        mean, var, weight, bias = (s[f"{at}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, mean, var, weight, bias, eps=1e-5))

    x = active(F.conv2d(x, s["features.conv0.weight"], stride=2, padding=3), "features.norm0")
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for block, layers in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            at = f"features.denseblock{block}.denselayer{layer}"
            y = F.conv2d(active(x, f"{at}.norm{dot}1"), s[f"{at}.conv{dot}1.weight"])
            y = F.conv2d(active(y, f"{at}.norm{dot}2"), s[f"{at}.conv{dot}2.weight"], padding=1)
            x = torch.cat([x, y], 1)
        if block < len(BLOCKS):
            at = f"features.transition{block}"
            x = F.avg_pool2d(F.conv2d(active(x, f"{at}.norm"), s[f"{at}.conv.weight"]), 2)
    return active(x, "features.norm5")


def saved(folder, state):
    path = folder / "densenet121.pth"
    torch.save(state, path)
    return {"weights": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize("dot", [".", ""])
def test_a_torchvision_file_gives_torchvisions_numbers(tmp_path, dot):
    state = torchvision_state(dot, counters=not dot)
    value = DenseNet121(dim=32, **saved(tmp_path, state))
    network, maps = value.build(3).eval(), value.trunk(3).maps.eval()
    x = torch.rand(2, 3, 64, 97)
    with torch.no_grad():
        wanted = oracle(x, state, dot)
        torch.testing.assert_close(maps(x), wanted, atol=1e-4, rtol=1e-4)
        out = network[0].class_layers.out
        torch.testing.assert_close(
            network(x), F.normalize(F.linear(wanted.mean((2, 3)), out.weight, out.bias)), atol=1e-5, rtol=1e-4
        )
    assert wanted.shape == (2, 1024, 2, 3)


def test_grey_images_keep_all_but_first_layer_and_head(tmp_path):
    state = torchvision_state()
    network = build_seeded(DenseNet121(dim=32, **saved(tmp_path, state)), channels=1, seed=0)
    fresh = build_seeded(DenseNet121(dim=32), channels=1, seed=0)[0].state_dict()
    loaded = network[0].state_dict()
    kept = {"features.conv0.weight", "class_layers.out.weight", "class_layers.out.bias"}
    given = {monai_name(k): v for k, v in state.items()}
    assert len(given) == len(state)
    for name, tensor in loaded.items():
        if name in kept:
            assert torch.equal(tensor, fresh[name])
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, given[name])
    assert loaded["features.conv0.weight"].shape == (64, 1, 7, 7)


def test_files_are_checked():
    with pytest.raises(InputError, match="DenseNet121.weights is 'x.pth' without its sha256"):
        DenseNet121(weights="x.pth")
    with pytest.raises(InputError, match="DenseNet121.weights: there is no file"):
        DenseNet121(weights="x.pth", sha256="0" * 64).build(1)
    with pytest.raises(InputError, match="DenseNet121.sha256 is 'a639ec9': .* its first eight hexadecimal digits"):
        DenseNet121(weights="x.pth", sha256="a639ec9")
    with pytest.raises(InputError, match=r"DenseNet121.dim must be at least 1"):
        DenseNet121(dim=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: s.pop("features.denseblock2.denselayer3.conv.2.weight"),
            r"misses .*denselayer3.layers.conv2.weight",
        ),
        (lambda s: s.update({"features.norm6.weight": torch.ones(1)}), "has the unknown features.norm6.weight"),
        (lambda s: s.update({"features.norm0.bias": torch.ones(3)}), "has other shapes for features.norm0.bias"),
    ],
)
def test_a_key_that_does_not_match_is_named(change, sentence):
    state = torchvision_state()
    backbone = DenseNet121().build(1)[0]
    change(state)
    with pytest.raises(InputError, match=f"not a torchvision DenseNet-121: it {sentence}"):
        load_torchvision(backbone, state, "file.pth")


def test_batch_norm_is_plain_so_that_it_can_be_synchronised():
    network = DenseNet121().build(1)
    assert sum(type(m) is nn.BatchNorm2d for m in network.modules()) == 121
