"""What the released codes compute (Oulu-IMEDS/AdaTriplet, commit 60073c5; fjssharpsword/FundusDR, commit 1b050ef).

Written anew from their formulas, over lists of triplets and pairs, to show where ours deliberately differs. Embeddings are
of unit length, as their networks give them.
"""

from __future__ import annotations

import brute_force
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import ThresholdReducer
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_triplets_indices
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize


def wat(x: Tensor, labels: Tensor, k: float) -> Tensor:
    a, p, n = get_all_triplets_indices(labels)
    sim = CosineSimilarity()(x)
    gap = (sim[a, p] - sim[a, n]).detach()
    margin = (2 - 2 * gap) / (4 - k) + k
    mined = gap - margin <= 0
    loss = TripletMarginLoss(margin[mined], distance=CosineSimilarity(), reducer=ThresholdReducer(low=0))
    return loss(x, labels, (a[mined], p[mined], n[mined]))


def sct(x: Tensor, labels: Tensor, margin: float, weight: float = 1.0) -> Tensor:
    a, p, n = get_all_triplets_indices(labels)
    distance = LpDistance()(x)  # the miner's default, though its condition was written for similarities
    pushed = distance[a, n] > distance[a, p]
    unit = normalize(x)
    ap, an = ((unit[a] * unit[other]).sum(1) for other in (p, n))
    triplet = torch.log(1 + torch.exp(an - ap + margin))[~pushed]
    return triplet.mean() + weight * an[pushed].mean()


def log_sum_exp(excess: Tensor) -> Tensor:
    """LogSumExpLoss of what is left after squeezing: one pair alone is averaged as it is."""
    return excess[0] if len(excess) == 1 else torch.log(1 + excess.exp()).mean()


def pair_terms(x: Tensor, labels: Tensor, beta: float, beta_p: float | None = None, lse: bool = False) -> Tensor:
    """loss_identity: the negative term alone, or with the positive one (``automargin_mode: add-ap``)."""
    sim = brute_force.similarities(x)
    in_triplets = {(min(a, p), max(a, p)) for a, p, _ in brute_force.triplets(labels)}
    near = [sim[i, j] - beta for i, j in brute_force.negative_pairs(labels) if sim[i, j] >= beta]
    far = [] if beta_p is None else [beta_p - sim[i, j] for i, j in sorted(in_triplets) if sim[i, j] <= beta_p]
    reduce = log_sum_exp if lse else torch.mean
    negative = reduce(torch.stack(near)) if near else torch.zeros((), dtype=x.dtype)
    positive = reduce(torch.stack(far)) if far else torch.zeros((), dtype=x.dtype)
    return (2 * negative if near and far else negative) + positive


def fine_triplet(x: Tensor, labels: Tensor, margin: float = 0.25, degrees: bool = True) -> Tensor:
    upper = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    same = labels[:, None] == labels
    sim = normalize(x) @ normalize(x).T
    d = cosine_similarity(*x.chunk(2, dim=1))
    r = (d[None] / d[:, None])[same & upper] if degrees else 1
    s, t = sim[same & upper], sim[~same & upper]
    positive = torch.exp(-r * torch.relu(1 + margin - s) * (s - (1 - margin))).sum()
    negative = torch.exp(torch.relu(t + margin) * (t - margin)).sum()
    return torch.log(1 + positive * negative)
