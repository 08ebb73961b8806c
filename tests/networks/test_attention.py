from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from torch import nn

from marginlab.networks import (
    DenseNet121,
    GemPooling,
    MirrorAttention,
    ResNet18,
    SelfAttention,
    SmallNetwork,
    Trunk,
    Unit,
    build_seeded,
    normalises_by_batch,
)
from marginlab.networks.attention import ViewAttention
from marginlab.space import choice
from marginlab.study import Arm
from marginlab.training import fit
from marginlab.values import InputError, fingerprint, from_json, to_json
from tests.networks.pointwise import Pointwise
from tests.tiny import TRAINING, Keep, tiny_data, tiny_run

torch.set_num_threads(1)

SMALL = SmallNetwork(width=16)  # maps of 64 channels
BOTH = [MirrorAttention, SelfAttention]


def awake(network, seed=1):
    """The network with an output projection that is not zero, in float64."""
    g = torch.Generator().manual_seed(seed)
    network = network.double()
    block = network if isinstance(network, ViewAttention) else network.attention
    with torch.no_grad():
        for out in block.out.values():
            out.weight.copy_(torch.randn(out.weight.shape, generator=g, dtype=torch.float64))
            out.bias.copy_(torch.randn(out.bias.shape, generator=g, dtype=torch.float64))
        for value in block.value.values():
            value.bias.copy_(torch.randn(value.bias.shape, generator=g, dtype=torch.float64))
    return network


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def pictures(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- the module against loops


def unnormalised(channels=4, reduction=2):
    torch.manual_seed(3)
    return awake(ViewAttention(Trunk(nn.Identity(), channels, lambda n: nn.Identity(), lambda n: Unit()), reduction))


def by_loops(p, view, original, mirrored):
    """Y_m as the docstring defines it, position by position; ``p`` maps parameter names to tensors."""

    def at(x, i):
        return x[:, i // x.shape[2], i % x.shape[2]]

    def matrix(name):
        return p[f"{name}.weight"][:, :, 0, 0]

    images = []
    for x, y in zip(original, mirrored, strict=True):  # [C, H, W] each
        n = x.shape[1] * x.shape[2]
        keys = [(matrix("key.0") @ at(x, j)).clamp(min=0) for j in range(n)]
        values = [matrix(f"value.{view}") @ at(x, j) + p[f"value.{view}.bias"] for j in range(n)]
        columns = []
        for i in range(n):
            query = (matrix(f"query.{view}.0") @ at(y, i)).clamp(min=0)
            scores = [torch.exp((query * k).sum() / len(k) ** 0.5) for k in keys]
            summed = sum(s * v for s, v in zip(scores, values, strict=True)) / sum(scores)
            columns.append(matrix(f"out.{view}") @ summed + p[f"out.{view}.bias"] + at(x, i))
        images.append(torch.stack(columns, dim=1).unflatten(1, x.shape[1:]))
    return torch.stack(images)


def test_values_and_gradients_are_those_of_loops_over_positions():
    block = unnormalised()
    given = [pictures(2, 4, 3, 2, seed=s).requires_grad_() for s in range(3)]
    wanted = [x.detach().clone().requires_grad_() for x in given]
    copies = {k: v.detach().clone().requires_grad_() for k, v in block.named_parameters()}
    outputs = block(given[0], {"h": given[1], "v": given[2]})
    loops = [by_loops(copies, m, wanted[0], wanted[i]) for i, m in ((1, "h"), (2, "v"))]
    for i, (out, loop) in enumerate(zip(outputs, loops, strict=True)):
        torch.testing.assert_close(out, loop, atol=1e-12, rtol=1e-12)
        weight = pictures(*out.shape, seed=10 + i)
        (out * weight).sum().backward(retain_graph=True)
        (loop * weight).sum().backward(retain_graph=True)
    for x, y in zip(given, wanted, strict=True):
        torch.testing.assert_close(x.grad, y.grad, atol=1e-12, rtol=1e-12)
    for name, parameter in block.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        torch.testing.assert_close(parameter.grad, copies[name].grad, atol=1e-12, rtol=1e-12)


def test_the_weights_of_a_sum_add_up_to_one_unlike_the_released_ones():
    block = unnormalised()
    original, mirrored = pictures(2, 4, 7, 5), pictures(2, 4, 7, 5, seed=1)
    weights = block.weights("h", block.key(original).flatten(2), mirrored)
    assert weights.shape == (2, 35, 35)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 35).double(), atol=1e-14, rtol=0)
    with torch.no_grad():
        block.value["h"].weight.zero_()  # one value everywhere: its weighted mean is that value
    h, _ = block(original, {"h": mirrored, "v": mirrored})
    everywhere = block.out["h"](block.value["h"](original)[:, :, :1, :1]) + original
    torch.testing.assert_close(h, everywhere, atol=1e-12, rtol=0)
    assert (weights.sum(1) - 1).abs().max() > 0.1  # the released V A sums over this axis


def test_each_view_has_its_own_query_unlike_the_released_ones():
    block = unnormalised()
    views = {"h": pictures(1, 4, 3, 3, seed=1), "v": pictures(1, 4, 3, 3, seed=2)}
    original = pictures(1, 4, 3, 3)
    before = block(original, views)
    with torch.no_grad():
        block.query["h"][0].weight.neg_()
    after = block(original, views)
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])
    moved = block(original, views | {"v": views["v"] + 1})
    assert torch.equal(moved[0], after[0]) and not torch.allclose(moved[1], after[1])


@pytest.mark.parametrize("batch", [1, 3])
def test_the_backward_pass_keeps_what_the_docstring_says(batch):
    block, n = unnormalised().float(), 6 * 7
    kept = {}

    def keep(t):
        if t.shape[-2:] == (n, n):
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    x = torch.rand(batch, 4, 6, 7, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        outputs = block(x, {"h": x.flip(3), "v": x.flip(2)})
    assert sum(kept.values()) == 2 * batch * n**2 * 4
    assert len(outputs) == 2


# -- symmetry


@pytest.mark.parametrize("axis", [2, 3])
def test_a_mirrored_image_gives_mirrored_maps_and_the_same_descriptor_on_a_symmetric_backbone(axis):
    network = awake(build_seeded(MirrorAttention(Pointwise()), 3, 0))
    x = pictures(2, 3, 7, 5)
    maps, mirrored = (network.attention(*network.views(i)) for i in (x, x.flip(axis)))
    for y, z in zip(maps, mirrored, strict=True):
        torch.testing.assert_close(z, y.flip(axis), atol=1e-12, rtol=0)
    torch.testing.assert_close(network.halves(x.flip(axis)), network.halves(x), atol=1e-12, rtol=0)


def test_a_transposed_image_swaps_the_halves_where_the_views_swap_weights():
    network, swapped = (awake(build_seeded(MirrorAttention(Pointwise()), 3, 0)) for _ in range(2))
    state = network.state_dict()
    swapped.load_state_dict({other_view(k): v for k, v in state.items()})
    x = pictures(2, 3, 7, 5)
    torch.testing.assert_close(swapped.halves(x.mT), network.halves(x).flip(1), atol=1e-12, rtol=0)
    assert not torch.allclose(network.halves(x)[:, 0], network.halves(x)[:, 1])


def other_view(key):
    return re.sub(r"\.([hv])\.", lambda m: ".v." if m[1] == "h" else ".h.", key)


@pytest.mark.parametrize(("view", "axis"), [(0, 3), (1, 2)])
def test_on_a_symmetric_backbone_what_is_added_is_self_attention_at_the_mirrored_place(view, axis):
    mirror, plain = (awake(build_seeded(make(Pointwise()), 3, 0)) for make in BOTH)
    x = pictures(2, 3, 7, 5)
    original = mirror.maps(x)
    added, there = (n.attention(*n.views(x))[view] - original for n in (mirror, plain))
    torch.testing.assert_close(added, there.flip(axis), atol=1e-12, rtol=0)


def test_on_any_backbone_a_mirrored_image_swaps_original_and_view():
    network = build_seeded(MirrorAttention(SMALL), 1, 0).eval()
    x = torch.rand(2, 1, 70, 50)
    for view, axis in (("h", 3), ("v", 2)):
        original, views = network.views(x)
        swapped, swapped_views = network.views(x.flip(axis))
        torch.testing.assert_close(swapped, views[view])
        torch.testing.assert_close(swapped_views[view], original)
        assert not torch.allclose(original, views[view].flip(axis), atol=1e-3)  # strides make it asymmetric


# -- the network


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("training", [True, False])
def test_it_starts_as_the_pooled_backbone_twice(make, training):
    network = build_seeded(make(SMALL), 1, 0).train(training)
    plain = build_seeded(GemPooling(SMALL), 1, 0).train(training)
    x = torch.rand(4, 1, 97, 70)  # maps of 7 x 5
    assert network.views(x)[0].shape == (4, 64, 7, 5)
    out, once = network(x), plain(x)
    torch.testing.assert_close(out, torch.cat([once, once], dim=1) / 2**0.5, atol=1e-6, rtol=1e-5)
    assert torch.equal(out[:, :64], out[:, 64:])


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("backbone", [SMALL, ResNet18()])
def test_gradients_reach_every_parameter_after_the_first_step(make, backbone):
    network = build_seeded(make(backbone, dim=16), 1, 0)
    x, weight = torch.rand(6, 1, 64, 64), pictures(6, 16, dtype=torch.float32)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    (network(x) * weight).sum().backward()
    asleep = {k for k, p in network.named_parameters() if not p.grad.abs().sum()}
    assert all(k.startswith(("attention.key.", "attention.query.", "attention.value.")) for k in asleep)
    assert len(asleep) == 3 * 3 + 2 * 2
    optimiser.step()
    optimiser.zero_grad()
    (network(x) * weight).sum().backward()
    assert [k for k, p in network.named_parameters() if not p.grad.abs().sum()] == []


@pytest.mark.parametrize("make", BOTH)
def test_it_is_a_function_of_the_image_and_draws_nothing(make):
    network = awake(build_seeded(make(SMALL), 1, 0)).float()
    x = torch.rand(5, 1, 40, 40)
    before = torch.get_rng_state()
    assert torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
    torch.testing.assert_close(network(x)[:2], network(x[:2]), atol=1e-6, rtol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_ablation_has_the_same_parameters_and_initial_values():
    mirror, plain = (build_seeded(make(SMALL), 1, 0) for make in BOTH)
    assert same(mirror.state_dict(), plain.state_dict())
    c, d = 64, 32
    counted = sum(p.numel() for p in mirror.parameters()) - sum(p.numel() for p in mirror.maps.parameters())
    assert counted == 7 * c * d + 8 * d + 2 * c + 1
    other = build_seeded(MirrorAttention(SMALL), 1, 1)
    assert not same(mirror.state_dict(), other.state_dict())


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(("backbone", "channels"), [(SMALL, 64), (ResNet18(), 512), (DenseNet121(), 1024)])
def test_every_backbone_carries_it(make, backbone, channels):
    value = make(backbone)
    network = build_seeded(value, 1, 0).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(torch.rand(2, 1, 64, 48))
    assert (out.shape, out.dtype) == ((2, 2 * channels), torch.float32)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))
    assert normalises_by_batch(value) == (backbone is not SMALL) == normalises_by_batch(backbone)
    assert from_json(to_json(value)) == value
    assert fingerprint(value) == fingerprint(make(backbone=backbone))


def test_fingerprints_tell_them_apart_and_leave_the_backbones_alone():
    values = [
        SMALL,
        MirrorAttention(SMALL),
        SelfAttention(SMALL),
        GemPooling(SMALL),
        MirrorAttention(SMALL, reduction=4),
    ]
    values += [MirrorAttention(SMALL, dim=8), MirrorAttention(ResNet18()), SmallNetwork(), ResNet18()]
    assert len({fingerprint(v) for v in values}) == len(values)
    # As before these networks had feature maps to hand out: recorded runs are found by them.
    assert fingerprint(SmallNetwork()) == "378aceb5c1d06375"
    assert fingerprint(ResNet18()) == "99e1c2a0d79f04ce"


def test_both_halves_go_through_one_linear_layer():
    network = build_seeded(MirrorAttention(SMALL, dim=12), 1, 0)
    assert network.head.weight.shape == (6, 64)
    halves = network.halves(torch.rand(3, 1, 40, 40))
    assert halves.shape == (3, 2, 6)
    torch.testing.assert_close(torch.cosine_similarity(halves[:, 0], halves[:, 1]), torch.ones(3))  # degrees of 1
    assert network(torch.rand(3, 1, 40, 40)).shape == (3, 12)


@pytest.mark.parametrize("make", BOTH)
def test_a_training_with_it_is_resumed_bit_for_bit(make):
    run, data = tiny_run(network=make(SMALL, dim=16), epochs=2), tiny_data()
    whole, first, rest = Keep(), Keep(stop=1), Keep()
    fit(run, data, whole, device="cpu")
    fit(run, data, first, device="cpu")
    fit(run, data, rest, resume=first.states[-1], device="cpu")
    assert same(rest.states[-1], whole.states[-1])
    assert not torch.equal(
        whole.states[0]["network/attention.out.h.weight"], whole.states[-1]["network/attention.out.h.weight"]
    )


def test_an_arm_searches_over_it():
    arm = Arm(
        "mirror",
        dataclasses.replace(TRAINING, network=MirrorAttention(ResNet18())),
        space={"network.reduction": choice([2, 4]), "network.dim": choice([None, 128])},
    )
    assert arm.training.network.backbone == ResNet18()
    with pytest.raises(InputError, match="no field 'reductoin'"):
        Arm("mirror", arm.training, space={"network.reductoin": choice([2])})


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dim": 15}, "must be even"),
        ({"dim": 0}, "must be even"),
        ({"reduction": 0}, "at least 1"),
        ({"backbone": MirrorAttention()}, r"a network with a method trunk\(channels\)"),
        ({"backbone": SmallNetwork(dim=16)}, "backbone.dim has no effect"),
    ],
)
def test_refusals(make, wrong, says):
    with pytest.raises(InputError, match=f"{make.__name__}.*{says}"):
        make(**wrong)


def test_a_reduction_that_does_not_divide_the_channels_is_refused_when_built():
    with pytest.raises(InputError, match=r"MirrorAttention.reduction \(3\) must divide the backbone's 64 channels"):
        MirrorAttention(SMALL, reduction=3).build(1)
