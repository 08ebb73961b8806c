"""Which placement groups are forgotten, by what a row of looks finds; what Ray says of real ones is in tests/hosts."""

from __future__ import annotations

from marginlab.cluster.reaper import EMPTY_S, START_S, Group, Reaper


def group(placed: bool, used: bool = False, id: str = "a") -> Group:
    return Group(id, placed, used)


def test_a_placed_group_without_an_actor_is_given_back_after_a_while() -> None:
    reaper = Reaper()
    assert reaper.due([group(True)], 0.0) == []
    assert reaper.due([group(True)], EMPTY_S - 1) == []
    assert reaper.due([group(True)], EMPTY_S) == ["a"]


def test_a_group_that_was_used_in_between_is_not() -> None:
    reaper = Reaper()
    for now in range(0, 1000, 5):
        assert reaper.due([group(True, used=now % 25 == 0)], now) == []


def test_a_group_that_waits_for_its_place_has_as_long_as_ray_train_waits_for_it() -> None:
    reaper = Reaper()
    assert reaper.due([group(False)], 0.0) == []
    assert reaper.due([group(False)], START_S + EMPTY_S - 1) == []
    # Placed at the last moment, it is about to be used.
    assert reaper.due([group(True)], START_S + EMPTY_S) == []
    assert reaper.due([group(False)], START_S + EMPTY_S + 1) == []


def test_a_group_that_is_never_placed_is_given_back_in_the_end() -> None:
    reaper = Reaper()
    found = [reaper.due([group(False), group(False, True, "b")], now) for now in (0.0, START_S + EMPTY_S)]
    assert found == [[], ["a"]]
