"""Decoding on a Ray cluster gives what decoding here gives; a worker that dies or a node that sees other files is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ray

from marginlab.cluster.decoding import _fetched, on_ray
from marginlab.data.decode import Decoder
from marginlab.data.decoding import DEATH, decode
from marginlab.values import InputError
from tests.data.deadly import Deadly
from tests.data.listed import content, packed, people, write


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "private"))
    return write(tmp_path / "raw", *people(0, 30))


def test_the_same_dataset(ray_here: None, raw: Path, tmp_path: Path) -> None:
    (raw / "a001_0.png").write_bytes(b"broken")
    here, there = (
        packed(raw, tmp_path / name, unreadable_limit=0.1, hands=hands) for name, hands in (("a", None), ("b", on_ray))
    )
    assert content(here.folder) == content(there.folder)


def test_a_node_that_does_not_see_the_files(ray_here: None, raw: Path) -> None:
    decoder = Decoder(raw, 8, 1, None)
    task = ("a001_0.png", False)
    elsewhere = ray.put((decode(decoder, [("nowhere", False)]), "node7", ["a001_0.png"]))
    with pytest.raises(InputError, match=r"raw: the node node7 does not see a001_0\.png there. Put the raw folder on"):
        _fetched(elsewhere, decoder, [task])
    alike = ray.put((decode(decoder, [("nowhere", False)]), "node7", ["nowhere"]))
    assert _fetched(alike, decoder, [("nowhere", False)]).lost == {0: "the file does not exist"}


@pytest.mark.kills
def test_an_image_that_kills_its_worker_is_left_out(ray_here: None, raw: Path) -> None:
    chunk = [("a001_0.png", False), ("deadly", False)]
    made = dict(on_ray(Deadly(raw, 8, 1, None), [chunk, chunk[:1]]))
    assert made[0].lost == {1: DEATH} and made[1].lost == {}
    assert np.array_equal(made[0].pixels[:1], made[1].pixels)
