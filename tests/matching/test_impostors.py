"""The rates against loops over pairs, bounds worked out by hand, and people that were not counted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from marginlab.augment import Augment
from marginlab.data.phantom import OaiPhantom
from marginlab.data.phantom.knee_picture import render
from marginlab.data.phantom.layout_oai import subject
from marginlab.matching.impostors import BINS, STEP, Rates, Tail
from marginlab.networks import SmallNetwork, build_seeded


def clustered(subjects: int, images: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit embeddings [n, 8] around a centre per subject, the subject of each, and its visit (pairs of images share one)."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(subjects), images)
    x = rng.standard_normal((subjects, 8))[who] + spread * rng.standard_normal((len(who), 8))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), who, np.arange(len(who)) // 2


def loops(x: np.ndarray, who: np.ndarray, label: np.ndarray, visit: np.ndarray) -> tuple[list[float], list[float]]:
    strangers, matches = [], []
    for i in range(len(x)):
        for j in range(i):
            sim = float(np.float32(x[i].astype(np.float64) @ x[j].astype(np.float64)))
            if who[i] != who[j]:
                strangers.append(sim)
            if label[i] == label[j] and visit[i] != visit[j]:
                matches.append(sim)
    return strangers, matches


def test_shares_are_those_of_a_loop_over_pairs() -> None:
    x, who, visit = clustered(30, 4, 1.0)
    label = 2 * who + np.arange(len(who)) % 2  # two knees each: pairs of one person's two knees are neither
    rates = Rates.of(x, who, label, visit)
    strangers, matches = (np.array(v) for v in loops(x, who, label, visit))
    assert (rates.impostor.pairs, rates.impostor.subjects) == (len(strangers), 30)
    assert (rates.genuine.pairs, rates.genuine.subjects) == (len(matches), 30)
    bin, rounding = 2 / BINS, 1e-6
    for at in np.concatenate([np.linspace(-1, 1, 101), strangers[:50], matches[:50]]):
        share, none = rates.impostor.share(np.array([at]))
        if not none[0]:
            assert share[0] >= np.mean(strangers >= at + rounding)
            assert share[0] <= max(STEP * np.mean(strangers >= at - bin - rounding), 1 / len(strangers)) * 1.01
        share, none = rates.genuine.share(np.array([at]))
        if not none[0]:
            assert share[0] >= np.mean(matches <= at - bin - rounding)
            assert share[0] <= max(STEP * np.mean(matches <= at + bin + rounding), 1 / len(matches)) * 1.01


def test_what_no_stranger_reaches_is_below_one_in_all_pairs() -> None:
    x, who, visit = clustered(20, 2, 1.0)
    rates = Rates.of(x, who, who, np.arange(len(who)))
    strangers, _ = loops(x, who, who, visit)
    highest = max(strangers)
    share, none = rates.impostor.share(np.array([highest - 1e-6, highest + 1e-5, 1.0]))
    assert none.tolist() == [False, True, True]
    assert share.tolist() == [1 / len(strangers)] * 3  # one pair reaches the first, none the others


def test_the_table_is_small_and_survives_json() -> None:
    x, who, _ = clustered(60, 10, 1.0)
    rates = Rates.of(x, who, who, np.arange(len(who)))
    assert rates.impostor.pairs == 600 * 599 // 2 - 60 * 45 and len(rates.impostor.sim) < 350
    assert Rates.from_json(json.loads(json.dumps(rates.to_json()))) == rates


def test_one_person_has_no_stranger() -> None:
    x, who, visit = clustered(1, 4, 1.0)
    rates = Rates.of(x, who, who, visit)
    share, none = rates.impostor.share(np.array([0.5]))
    assert np.isnan(share).all() and not none.any() and np.isnan(rates.impostor.upper(share, none)).all()
    assert rates.genuine.pairs == 4 and Rates.from_json(json.loads(json.dumps(rates.to_json()))) == rates


def tail(subjects: int, sim: np.ndarray) -> Tail:
    histogram = np.bincount(((sim + 1) * BINS / 2).astype(int), minlength=BINS)
    return Tail.of(histogram, float(sim.max()), np.ones(subjects), "above")


def test_the_upper_bound_is_the_rule_of_three_where_nothing_was_seen() -> None:
    table = tail(200, np.linspace(-0.5, 0.5, 19900))
    share, none = table.share(np.array([0.9, 0.0]))
    upper = table.upper(share, none)
    assert upper[0] == pytest.approx(1 - 0.05 ** (1 / 100)) == pytest.approx(3 / 100, rel=0.02)
    p, q = share[1], upper[1]  # Chernoff's bound for 100 independent pairs
    assert 100 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))) == pytest.approx(np.log(20))
    assert Tail.of(np.zeros(BINS), 0.0, np.array([9, 1, 1, 1]), "above").effective == pytest.approx(12**2 / 84)


def test_the_upper_bound_holds_when_other_people_are_drawn() -> None:
    """Some people look like everybody: pairs are far from independent. The true share is that of 1,500 people."""
    rng = np.random.default_rng(1)

    def similarities(n: int) -> np.ndarray:
        face = rng.standard_normal(n)
        return np.tanh((face[:, None] + face[None])[np.triu_indices(n, 1)] / 4)

    true = np.mean(similarities(1500) >= 0.6)
    held = 0
    table = tail(40, similarities(40))
    for _ in range(100):
        seen = np.mean(similarities(40) >= 0.6, keepdims=True)
        held += table.upper(seen, seen == 0)[0] >= true
    assert 0.01 < true < 0.1 and held >= 95


def test_held_out_phantoms_hit_the_stated_rate() -> None:
    """120 people are counted; of 120 others, 60 pairs that share nobody are strangers at the stated rate."""
    phantom, augment = OaiPhantom(subjects=240, size=36), Augment(crop=32)
    pixels = np.concatenate(
        [render(phantom.version, phantom.seed, i, phantom.size, [subject(phantom, i).visits[0]]) for i in range(240)]
    )
    network = build_seeded(SmallNetwork(width=16, dim=32), 1, 0).eval()
    with torch.inference_mode():
        x = network(augment.evaluate(torch.from_numpy(pixels)[:, None], (0.5,), (0.3,))).numpy()
    counted, others = x[:120], x[120:]
    nobody = np.arange(120)
    rates = Rates.of(counted, nobody, nobody, nobody)
    sim = (others[0::2].astype(np.float64) * others[1::2]).sum(1)
    share, _ = rates.impostor.share(sim)
    for rate in (0.02, 0.1, 0.3, 0.5):
        hits = int((share <= rate).sum())
        assert abs(hits - 60 * rate) <= 3 * np.sqrt(60 * rate * (1 - rate)), (rate, hits)
    every = others @ others.T
    share, _ = rates.impostor.share(every[np.triu_indices(120, 1)].astype(np.float64))
    assert np.mean(share <= 0.01) == pytest.approx(0.01, abs=3 * np.sqrt(0.01 * 0.99 / 60))
