from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from marginlab.networks import ResNet18, build_seeded
from marginlab.networks.resnet import load_torchvision
from marginlab.values import InputError

torch.set_num_threads(1)

PLANES = (64, 128, 256, 512)


def torchvision_state(channels=3, classes=1000, counters=True):
    """Random tensors under the names and shapes of ``torchvision.models.resnet18().state_dict()``, in its order."""
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

    conv("conv1", 64, channels, 7)
    norm("bn1", 64)
    for layer, planes in enumerate(PLANES, 1):
        for block in (0, 1):
            inputs = PLANES[layer - 2] if layer > 1 and block == 0 else planes
            at = f"layer{layer}.{block}"
            conv(f"{at}.conv1", planes, inputs, 3)
            norm(f"{at}.bn1", planes)
            conv(f"{at}.conv2", planes, planes, 3)
            norm(f"{at}.bn2", planes)
            if inputs != planes:
                conv(f"{at}.downsample.0", planes, inputs, 1)
                norm(f"{at}.downsample.1", planes)
    state["fc.weight"] = torch.randn(classes, 512, generator=g) * 0.04
    state["fc.bias"] = torch.randn(classes, generator=g) * 0.04
    return state


def oracle(x, s):
    """torchvision's ResNet-18 in evaluation mode, written out: conv1 7/2 pad 3, max pool 3/2 pad 1, post-activation blocks."""

    def norm(x, at):
        return F.batch_norm(
            x, s[f"{at}.running_mean"], s[f"{at}.running_var"], s[f"{at}.weight"], s[f"{at}.bias"], eps=1e-5
        )

    x = F.relu(norm(F.conv2d(x, s["conv1.weight"], stride=2, padding=3), "bn1"))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = F.relu(norm(F.conv2d(x, s[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.bn1"))
            y = norm(F.conv2d(y, s[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
            if f"{at}.downsample.0.weight" in s:
                x = norm(F.conv2d(x, s[f"{at}.downsample.0.weight"], stride=stride), f"{at}.downsample.1")
            x = F.relu(x + y)
    return F.linear(x.mean(dim=(2, 3)), s["fc.weight"], s["fc.bias"])


def saved(folder, state):
    path = folder / "resnet18.pth"
    torch.save(state, path)
    return {"weights": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [64, 97])
def test_it_computes_what_torchvisions_does(channels, size):
    state = torchvision_state(channels, classes=128)
    network = ResNet18().build(channels).eval()
    network[0].load_state_dict(state)  # strict: names and shapes are torchvision's
    x = torch.rand(2, channels, size, size)
    with torch.no_grad():
        torch.testing.assert_close(network[0](x), oracle(x, state), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(network(x), F.normalize(oracle(x, state)), atol=1e-5, rtol=1e-4)


def test_published_weights_on_grey_images_keep_all_but_first_layer_and_head(tmp_path):
    state = torchvision_state(counters=False)  # as in torchvision's published files
    network = build_seeded(ResNet18(dim=32, **saved(tmp_path, state)), channels=1, seed=0)
    fresh = build_seeded(ResNet18(dim=32), channels=1, seed=0)
    loaded, first = network[0].state_dict(), fresh[0].state_dict()
    kept = {"conv1.weight", "fc.weight", "fc.bias"}
    for name, tensor in loaded.items():
        if name in kept:
            assert torch.equal(tensor, first[name])
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[name])
    assert loaded["conv1.weight"].shape == (64, 1, 7, 7)
    assert loaded["fc.weight"].shape == (32, 512)
    out = network(torch.rand(2, 1, 64, 64))
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))


def test_colour_images_keep_the_first_layer_too(tmp_path):
    state = torchvision_state()
    network = ResNet18(**saved(tmp_path, state)).build(3)
    assert torch.equal(network[0].conv1.weight, state["conv1.weight"])


def test_weights_need_their_checksum_and_the_right_one(tmp_path):
    given = saved(tmp_path, torchvision_state())
    with pytest.raises(InputError, match="without its sha256"):
        ResNet18(weights=given["weights"])
    with pytest.raises(InputError, match="it is another file"):
        ResNet18(weights=given["weights"], sha256="0" * 64).build(1)
    with pytest.raises(InputError, match="there is no file"):
        ResNet18(weights=str(tmp_path / "none.pth"), sha256="0" * 64).build(1)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_file_that_is_no_state_dict_is_refused_unexecuted(tmp_path, capsys):
    with pytest.raises(InputError, match="read safely"):
        ResNet18(**saved(tmp_path, {"conv1.weight": Evil()})).build(1)
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="not a state dict"):
        ResNet18(**saved(tmp_path, [torch.ones(1)])).build(1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("layer4.1.bn2.weight"), "it misses layer4.1.bn2.weight"),
        (lambda s: s.update({"layer1.2.conv1.weight": torch.ones(1)}), "has the unknown layer1.2.conv1.weight"),
        (lambda s: s.update({"bn1.bias": torch.ones(3)}), "has other shapes for bn1.bias"),
        (lambda s: s.clear(), "and 97 more"),
    ],
)
def test_a_key_that_does_not_match_is_named(change, sentence):
    state = torchvision_state()
    backbone = ResNet18().build(1)[0]
    change(state)
    with pytest.raises(InputError, match=sentence):
        load_torchvision(backbone, state, "file.pth")


def test_batch_norm_is_plain_so_that_it_can_be_synchronised():
    network = ResNet18().build(1)
    assert sum(type(m) is nn.BatchNorm2d for m in network.modules()) == 20
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert sum(type(m) is nn.SyncBatchNorm for m in synchronised.modules()) == 20
