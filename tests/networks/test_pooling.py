from __future__ import annotations

import pytest
import torch

from marginlab.networks import Gem, GemPooling, SmallNetwork, build_seeded, normalises_by_batch
from marginlab.values import InputError, fingerprint, from_json, to_json

torch.set_num_threads(1)


def by_the_formula(x, p, eps=1e-6):
    return x.clamp(min=eps).pow(p).mean(dim=(2, 3)).pow(1 / p)


@pytest.mark.parametrize("p", [1.0, 3.0, 4.5])
def test_values_and_gradients_are_the_formulas_in_float64(p):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64, generator=g)  # some below zero
    weight = torch.randn(2, 3, dtype=torch.float64, generator=g)
    gem, mine, theirs = Gem(p).double(), x.clone().requires_grad_(), x.clone().requires_grad_()
    exponent = torch.tensor(p, dtype=torch.float64, requires_grad=True)
    (gem(mine) * weight).sum().backward()
    (by_the_formula(theirs, exponent) * weight).sum().backward()
    torch.testing.assert_close(gem(x), by_the_formula(x, p), atol=1e-13, rtol=1e-12)
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-13, rtol=1e-12)
    torch.testing.assert_close(gem.p.grad, exponent.grad, atol=1e-13, rtol=1e-11)


def test_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]]]])
    torch.testing.assert_close(Gem()(x), torch.tensor([[9.0 ** (1 / 3)]]))  # (1 + 8 + 27) / 4 = 9
    torch.testing.assert_close(Gem(1.0)(x), torch.tensor([[1.5]]))
    torch.testing.assert_close(Gem(200.0)(x), torch.tensor([[3.0]]), atol=0.03, rtol=0)


def test_it_starts_as_published():
    gem = Gem()
    assert (gem.p.item(), gem.eps) == (3.0, 1e-6)
    assert gem.p.requires_grad


def test_a_silent_channel_keeps_the_gradient_of_p_a_number_where_the_formula_does_not():
    x = torch.zeros(1, 1, 2, 2)
    exponent = torch.tensor(8.0, requires_grad=True)
    by_the_formula(x, exponent).sum().backward()
    assert exponent.grad.isnan()  # eps^8 is 0 in float32
    gem = Gem(8.0)
    gem(x).sum().backward()
    assert abs(gem.p.grad.item()) < 1e-9
    torch.testing.assert_close(Gem(8.0)(x), torch.full((1, 1), 1e-6))


def test_half_precision_maps_are_pooled_in_float32():
    x = torch.rand(2, 4, 3, 3).to(torch.bfloat16)
    assert Gem()(x).dtype == torch.float32
    torch.testing.assert_close(Gem()(x), Gem()(x.float()))


@pytest.mark.parametrize(("dim", "width"), [(None, 64), (24, 24)])
def test_a_backbone_with_nothing_but_the_pooling(dim, width):
    value = GemPooling(SmallNetwork(width=16), dim=dim)
    network = build_seeded(value, channels=2, seed=0)
    out = network(torch.rand(3, 2, 70, 50))
    assert (out.shape, out.dtype) == ((3, width), torch.float32)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
    assert from_json(to_json(value)) == value
    assert fingerprint(value) != fingerprint(GemPooling(SmallNetwork(width=32), dim=dim))
    assert not normalises_by_batch(value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GemPooling(dim=0), "at least 1, or None, not 0"),
        (lambda: GemPooling(backbone=GemPooling()), "a network with a method trunk"),
        (lambda: GemPooling(SmallNetwork(dim=16)), "backbone.dim has no effect"),
    ],
)
def test_refusals(make, says):
    with pytest.raises(InputError, match=says):
        make()
