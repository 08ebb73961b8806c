from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from marginlab.retrieval import Ranking, concatenate
from marginlab.runs import read_embeddings
from marginlab.stored import Stored, visits
from marginlab.values import InputError
from tests.retrieval.oracle import same

N = 300


def frames(seed=0, dims=(8,)) -> list[pl.DataFrame]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 40, N)
    months = rng.choice([0, 12, 24, np.nan], N, p=[0.4, 0.3, 0.2, 0.1]).astype(np.float32)
    small = {"row": rng.permutation(5 * N)[:N], "label": label, "months": months}
    points = [(rng.normal(size=(40, d))[label] + rng.normal(size=(N, d))).astype(np.float32) for d in dims]
    return [pl.DataFrame({**small, "embedding": pl.Series(p, dtype=pl.Array(pl.Float32, p.shape[1]))}) for p in points]


def write(folder, frames, row_group_size=64) -> list:
    paths = [folder / f"{i}.parquet" for i in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        frame.write_parquet(path, row_group_size=row_group_size)
    return paths


def in_memory(embeddings, frame, query, gallery, gain=None) -> Ranking:
    label, months = frame["label"].to_numpy(), frame["months"].to_numpy()
    visit = visits(label, months)
    q, g = np.flatnonzero(query), np.flatnonzero(gallery)
    return Ranking.of(embeddings[q], embeddings[g], label[q], label[g], visit[q], visit[g], gain=gain)


@pytest.mark.parametrize("rows", [1, 50, 10_000])
@pytest.mark.parametrize("queries", [None, 1, 70])
def test_a_file_is_ranked_as_its_embeddings_in_memory(tmp_path, rows, queries):
    [frame] = frames()
    stored = Stored.open(*write(tmp_path, [frame]))
    if rows == 1 and queries == 1:
        queries = 40  # the gallery is read twice for each
    months = frame["months"].to_numpy()
    expected = in_memory(read_embeddings(frame), frame, months > 0, months == 0)
    assert same(stored.ranking(rows=rows, queries=queries), expected)


def test_every_image_against_all_others_and_graded_relevance(tmp_path):
    [frame] = frames()
    stored = Stored.open(*write(tmp_path, [frame]))
    everything = np.ones(N, bool)
    gain = np.eye(40) + 0.5 * np.eye(40, k=1)
    expected = in_memory(read_embeddings(frame), frame, everything, everything, gain)
    found = stored.ranking("validation", gain=gain, rows=90)
    assert same(found, expected)
    assert found.ndcg(5) == expected.ndcg(5)


def test_several_files_are_one_ensemble(tmp_path):
    both = frames(dims=(8, 5))
    stored = Stored.open(*write(tmp_path, both[:1], 64), *write(tmp_path / "", [both[0], both[1]], 37)[1:])
    months = both[0]["months"].to_numpy()
    joint = concatenate([read_embeddings(f) for f in both])
    assert same(stored.ranking(rows=41), in_memory(joint, both[0], months > 0, months == 0))


def test_only_a_piece_of_the_embeddings_is_held(tmp_path):
    stored = Stored.open(*write(tmp_path, frames(), row_group_size=N))  # one row group, as a run writes it
    sizes = [len(piece) for piece in stored.pieces(np.ones(N, bool), 32)]
    assert sizes == [32] * 9 + [12]


def test_images_of_unknown_month_are_visits_of_their_own():
    months = np.array([0, 0, np.nan, np.nan, 12], dtype=np.float32)
    codes = visits(np.array([1, 1, 1, 1, 2]), months)
    assert codes[0] == codes[1] and len(set(codes.tolist())) == 4


def test_refusals(tmp_path):
    [frame] = frames()
    paths = write(tmp_path, [frame, frame.reverse(), frame.drop("months"), frame.filter(pl.col("months") == 0)])
    with pytest.raises(InputError, match="another order"):
        Stored.open(*paths[:2])
    with pytest.raises(InputError, match="'months' is missing"):
        Stored.open(paths[2])
    with pytest.raises(InputError, match="no such file"):
        Stored.open(tmp_path / "absent.parquet")
    with pytest.raises(InputError, match="at least one"):
        Stored.open()
    with pytest.raises(InputError, match="no query under the test protocol"):
        Stored.open(paths[3]).ranking()
    with pytest.raises(InputError, match="not 'train'"):
        Stored.open(paths[0]).ranking("train")
    (tmp_path / "0.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match="damaged"):
        Stored.open(paths[0])
