"""Many images in several processes are what they are in one, whatever happens to the processes."""

import multiprocessing
import os
import signal

import numpy as np
import pytest

from marginlab.data.decode import Decoder
from marginlab.data.decoding import DEATH, cores, decode, here
from tests.data.deadly import Deadly
from tests.data.listed import people, write


@pytest.fixture
def raw(tmp_path):
    return write(tmp_path / "raw", *people(0, 24))


def chunks(raw, *more):
    tasks = [(p.name, i % 2 == 0) for i, p in enumerate(sorted(raw.iterdir()))]
    return [*(tasks[i : i + 4] for i in range(0, len(tasks), 4)), *more]


def test_a_process_that_is_killed_costs_nothing(raw):
    decoder = Decoder(raw, 8, 1, None)
    given = chunks(raw, [("nowhere", False)])
    results = here(2)(decoder, given)
    made = dict([next(results)])
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    for i, decoded in results:
        assert i not in made
        made[i] = decoded
    assert sorted(made) == list(range(len(given)))
    for i, chunk in enumerate(given):
        alone = decode(decoder, chunk)
        assert np.array_equal(made[i].pixels, alone.pixels) and made[i].lost == alone.lost
    assert made[len(given) - 1].lost == {0: "the file does not exist"}
    assert not multiprocessing.active_children()


@pytest.mark.kills
def test_an_image_that_kills_whoever_decodes_it_is_left_out(raw):
    given = [[("a001_0.png", False), ("deadly", False)], *chunks(raw)]
    made = dict(here(2)(Deadly(raw, 8, 1, None), given))
    assert sorted(made) == list(range(len(given)))
    assert made[0].lost == {1: DEATH} and not any(made[i].lost for i in range(1, len(given)))
    assert np.array_equal(made[0].pixels[:1], decode(Decoder(raw, 8, 1, None), given[0][:1]).pixels)


def test_cores():
    assert 1 <= cores() <= (os.cpu_count() or 1)
