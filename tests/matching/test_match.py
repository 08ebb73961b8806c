"""Nearest matches against a loop; what is known of strangers beside them; the two commands from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marginlab.cli import main
from marginlab.matching import embed as embedding
from marginlab.matching.embed import Embedded
from marginlab.matching.images import listed
from marginlab.matching.match import MATCHES, counted_on, match, shown_rate, write
from marginlab.matching.model import Embedder
from marginlab.values import InputError


def embedded(x: np.ndarray, name: str, paths: tuple[str, ...] | None = None) -> Embedded:
    files = [f"{name}/{i}" for i in range(len(x))]
    frame = pl.DataFrame({"file": files, "embedding": pl.Series(x, dtype=pl.Array(pl.Float32, x.shape[1]))})
    return Embedded(frame, paths or tuple(files), pl.DataFrame())


def units(n: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).integers(-1, 2, (n, 4)) + 0.01  # few values: many equal similarities
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("top", [1, 3, 50])
def test_matches_are_those_of_a_loop(made, top):
    q, g = units(7, 0), units(40, 1)
    paths = tuple("q/3" if i == 5 else f"g/{i}" for i in range(40))  # one file is in both
    model = Embedder.open(made.model)
    found = match(model, embedded(q, "q"), embedded(g, "g", paths), top)
    assert dict(found.schema) == MATCHES
    for i in range(7):
        sims = [float(np.clip(np.float32(q[i] @ g[j]), -1, 1)) for j in range(40)]
        admissible = [j for j in range(40) if paths[j] != f"q/{i}"]
        nearest = sorted(admissible, key=lambda j: (-round(sims[j], 5), j))[:top]
        mine = found.filter(query=f"q/{i}")
        assert mine["rank"].to_list() == list(range(1, len(nearest) + 1))
        assert mine["similarity"].to_list() == pytest.approx([sims[j] for j in nearest], abs=1e-6)
        if i != 3:
            assert mine["match"].to_list()[:1] == [f"g/{nearest[0]}"] or sims[nearest[0]] == pytest.approx(
                sims[int(mine["match"][0][2:])], abs=1e-6
            )
    rates = model.rates
    assert rates is not None
    share, none = rates.impostor.share(found["similarity"].to_numpy())
    assert (
        found["false_match_rate"].to_list() == share.tolist() and found["false_match_below"].to_list() == none.tolist()
    )
    assert (found["false_match_upper"] >= found["false_match_rate"]).all()
    assert found["false_non_match_rate"].is_between(0, 1).all()
    assert set(found["rates_from"]) == {counted_on(model)} and "PHANTOMS (OaiPhantom v1)" in str(counted_on(model))


def test_without_counts_the_columns_are_empty(made, tmp_path):
    model = Embedder.open(made.copy(tmp_path / "old", rates=...))
    found = match(model, embedded(units(2, 0), "q"), embedded(units(3, 1), "g"), 2)
    assert dict(found.schema) == MATCHES and len(found) == 4
    assert all(found[name].null_count() == 4 for name in list(MATCHES)[4:])
    assert shown_rate(None, False) == "unknown" and shown_rate(1 / 300, True) == "< 0.0033"


def test_embeddings_are_kept_and_only_their_model_reads_them(made, tmp_path):
    model, out = Embedder.open(made.model), tmp_path / "e.parquet"
    one = embedding.embed(model, listed(str(made.raw / "ResizedImages"), model.config))
    assert embedding.write(one, model, out) is None
    again = embedding.read(out, model)
    assert again.frame.equals(one.frame) and again.path == one.path
    other = Embedder.open(made.copy(tmp_path / "other", crop=30))
    with pytest.raises(InputError, match="embeddings of another model"):
        embedding.read(out, other)
    one.frame.write_parquet(out)
    with pytest.raises(InputError, match="not written by marginlab embed"):
        embedding.read(out, model)
    out.write_bytes(b"no")
    with pytest.raises(InputError, match="damaged"):
        embedding.read(out, model)


def test_a_file_of_matches_is_whole_and_of_a_known_kind(tmp_path):
    frame = pl.DataFrame({"query": ["a"], "similarity": [0.5]})
    for name, read in (("m.csv", pl.read_csv), ("m.parquet", pl.read_parquet)):
        write(frame, tmp_path / name)
        assert read(tmp_path / name).equals(frame)
    with pytest.raises(InputError, match=r"\.parquet or \.csv"):
        write(frame, tmp_path / "m.xlsx")


def call(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(argv))
    return int(end.value.code or 0)


def test_the_commands(made, tmp_path, monkeypatch, capsys):
    """The subject with its own later image: the nearest of all to itself; a damaged file is a line in a report."""
    monkeypatch.chdir(tmp_path)
    model, raw = str(made.model), made.raw / "ResizedImages"
    names = sorted(p.name for p in raw.iterdir() if p.stem.endswith("_L"))
    Path("queries").mkdir()
    for name in names[:3]:
        (Path("queries") / name).write_bytes((raw / name).read_bytes())
    (Path("queries") / "cut.png").write_bytes((raw / names[0]).read_bytes()[:60])
    assert call("embed", model, str(raw), "--out", "e.parquet") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"e.parquet: {len(list(raw.iterdir()))} embeddings of 16 numbers" in said and "Next: marginlab match" in said
    assert "side R mirrored" in said and "biometric" in said
    assert not Path("e.unreadable.csv").exists()
    assert call("match", model, "queries", "e.parquet", "--top", "2") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 image could not be read: matches.queries.unreadable.csv" in said and "RATES OF PHANTOMS" in said
    assert "matches.csv: 6 matches of 3 queries" in said and "Next: look at the pairs" in said
    found = pl.read_csv("matches.csv")
    assert found.columns == list(MATCHES) and found["query"].unique().sort().to_list() == [
        f"queries/{n}" for n in names[:3]
    ]
    first = found.filter(rank=1)  # a copy is another file: it finds the original
    assert [Path(m).name for m in first["match"]] == names[:3] and first["similarity"].min() > 0.99999
    lost = pl.read_csv("matches.queries.unreadable.csv")
    assert lost["file"].to_list() == ["queries/cut.png"] and "truncated or damaged" in lost["reason"][0]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("embed", "MODEL", "queries", "--out", "e.csv"), "end the name with .parquet"),
        (("embed", "MODEL", "nowhere"), "nowhere: there is no such folder or file"),
        (("embed", "nowhere", "queries"), "There is no model 'nowhere'"),
        (("match", "MODEL", "bad.png", "bad.png"), "None of the 1 images can be read; the first is bad.png"),
        (("embed", "MODEL", "RAW", "--device", "tpu"), "The device is cpu or cuda, not 'tpu'"),
        (("match", "MODEL", "RAW", "RAW", "--top", "0"), "--top must be at least 1"),
        (("match", "MODEL", "RAW", "RAW", "--out", "m.txt"), "matches are written as .parquet or .csv"),
    ],
)
def test_bad_input_ends_in_a_sentence_and_nothing_is_written(made, tmp_path, monkeypatch, capsys, argv, says):
    monkeypatch.chdir(tmp_path)
    Path("bad.png").write_bytes(b"no image")
    raw = str(next((made.raw / "ResizedImages").iterdir()))
    names = {"MODEL": str(made.model), "RAW": raw}
    assert call(*(names.get(a, a) for a in argv)) == 2
    seen = capsys.readouterr()
    assert says in " ".join(seen.err.split()) and "Traceback" not in seen.err
    assert [p.name for p in Path().iterdir()] == ["bad.png"]
