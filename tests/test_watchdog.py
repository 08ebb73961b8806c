"""The watchdog's verdicts on what ranks say of themselves, and two ranks that hear each other."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from marginlab.pulse import Pulse
from marginlab.watchdog import Beat, Judge, Watch, serve

WAITING, AT_WORK = True, False


def beat(rank: int, number: int, entered: int, waiting: bool, excused: int = 0, place: str = "epoch 2, step 5") -> Beat:
    return Beat(rank, f"host{rank}", number, entered, waiting, excused, place)


def judged(limit_s: float, *moments: tuple[float, list[Beat]]) -> list[str]:
    judge = Judge(limit_s)
    return [judge.verdict(beats, now) for now, beats in moments]


def test_ranks_that_get_further_are_left_alone() -> None:
    moments = [(10.0 * i, [beat(0, i, i, WAITING), beat(1, i, i, AT_WORK)]) for i in range(9)]
    assert not any(judged(30, *moments))


def test_a_rank_that_is_silent_is_named_with_its_host_and_place() -> None:
    *before, last = judged(
        30, *((10.0 * i, [beat(0, i, 7, WAITING), beat(1, min(i, 1), 7, AT_WORK)]) for i in range(4))
    )
    assert not any(before)
    assert last == (
        "Rank 1 on host1, last in epoch 2, step 5, was not heard from for 20 s: its process is stopped, or its host cut off."
    )


def test_a_rank_that_cannot_be_reached_is_silent() -> None:
    """Through rank 0 all ranks are heard, so that no other is blamed."""
    moments = [(10.0 * i, [beat(0, i, 7, AT_WORK), beat(1, 1, 7, WAITING)] if i < 2 else []) for i in range(5)]
    *before, last = judged(30, *moments)
    assert not any(before)
    assert last.startswith("Rank 0 on host0")


def test_a_rank_that_keeps_the_others_waiting_is_named() -> None:
    moments = [(10.0 * i, [beat(0, i, 8, WAITING), beat(1, i, 7, AT_WORK), beat(2, i, 8, WAITING)]) for i in range(4)]
    assert judged(30, *moments)[-1] == "Rank 1 on host1, last in epoch 2, step 5, kept the others waiting for 30 s."


def test_a_rank_that_others_wait_for_within_torch_is_named() -> None:
    moments = [(10.0 * i, [beat(0, i, 8, AT_WORK), beat(1, i, 7, AT_WORK)]) for i in range(4)]
    assert judged(30, *moments)[-1].startswith("Rank 1 on host1") and "waiting" in judged(30, *moments)[-1]


def test_ranks_that_wait_for_one_another_are_all_named() -> None:
    moments = [(10.0 * i, [beat(0, i, 8, WAITING), beat(1, i, 8, WAITING)]) for i in range(4)]
    assert "0 on host0, 1 on host1" in judged(30, *moments)[-1]


def test_what_a_rank_does_for_all_takes_as_long_as_it_takes() -> None:
    moments = [(10.0 * i, [beat(0, i, 7, AT_WORK, excused=1), beat(1, i, 8, WAITING)]) for i in range(9)]
    assert not any(judged(30, *moments))


def test_ranks_at_work_are_not_judged() -> None:
    moments = [(10.0 * i, [beat(0, i, 7, AT_WORK), beat(1, i, 7, AT_WORK)]) for i in range(9)]
    assert not any(judged(30, *moments))


def test_a_pulse_counts_collectives_and_excuses() -> None:
    pulse = Pulse()
    with pulse.collective():
        assert (pulse.entered, pulse.waiting) == (1, True)
    with pulse.alone():
        with pulse.alone():
            pass
        assert pulse.excused == 1
    assert (pulse.entered, pulse.waiting, pulse.excused) == (1, False, 0)


def test_two_watches_agree_on_who_stands_still() -> None:
    """Rank 1 works on alone, rank 0 waits: both find out, over a real store."""
    server, said, ended = serve(5.0), [], []
    pulses = [Pulse(entered=2, waiting=True), Pulse(entered=1, place="epoch 1, step 3")]
    with ExitStack() as stack:
        watches = [
            Watch(r, 2, ("127.0.0.1", server.port), 0.5, said.append, [server, None][r], ended.append, pulses[r])
            for r in range(2)
        ]
        for watch in watches:
            stack.enter_context(watch)
        for watch in watches:
            watch.thread.join(60)
    assert ended and set(ended) == {1}
    assert all(s.startswith("Rank 1 on ") and "epoch 1, step 3" in s for s in said)


def test_a_rank_that_holds_the_store_and_is_stopped_is_named() -> None:
    """A stopped process accepts connections and never answers: a listening socket that nobody reads from."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        said, ended = [], []
        watch = Watch(1, 2, mute.getsockname(), 0.5, said.append, None, ended.append, Pulse(entered=1, waiting=True))
        with watch:
            watch.thread.join(60)
    assert ended == [1]
    assert said[0].startswith("Rank 0 on ")
