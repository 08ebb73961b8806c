"""Cost against what was reached: two small searches, worked out by hand. An epoch takes 4 s, epoch 0 too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from marginlab.cost import best_so_far, default_value, sentences, shares, spent, to_target, unit
from marginlab.plan import SearchKey
from marginlab.results import Results
from marginlab.study import Comparison, Confirmation, Dataset, Search, Study
from tests.report.synthetic import Synthetic, edit_json, study

ARMS = ("automargin", "fixed")
DEFAULTS = {"automargin": {"margin.k_delta": 2.0}, "fixed": {"margin.epsilon": 0.25}}
Tried = list[tuple[float, int, str, dict[str, Any]]]  # the last value, epochs, state, parameters
AUTO: Tried = [
    (0.58, 4, "complete", DEFAULTS["automargin"]),  # 4 epochs, 20 s
    (0.90, 1, "failed", {"margin.k_delta": 4.0}),  # 5 epochs, 28 s: what a failed trial has reached does not count
    (0.62, 4, "complete", {"margin.k_delta": 1.0}),  # 9 epochs, 48 s
]
FIXED: Tried = [
    (0.50, 4, "complete", DEFAULTS["fixed"]),  # 4 epochs, 20 s
    (0.70, 2, "pruned", {"margin.epsilon": 0.3}),  # 6 epochs, 32 s
    (0.60, 4, "complete", {"margin.epsilon": 0.4}),  # 10 epochs, 52 s
    (0.60, 4, "complete", {"margin.epsilon": 0.5}),  # 14 epochs, 72 s: a tie leads nothing
]


def question(replicates: int = 1, **confirmation: Any) -> Study:
    whole = study()
    return dataclasses.replace(
        whole,
        datasets=[Dataset("oai", root="/raw/oai")],
        arms=[whole.arm(a) for a in ARMS],
        search=Search(epochs_budget=15, max_epochs=4, replicates=replicates),
        confirmation=Confirmation(seeds=2, folds=1, **confirmation),
        comparison=Comparison(contrast=ARMS, margin=0.01),
    )


def searched(made: Synthetic, arm: str, tried: Tried, replicate: int = 0) -> None:
    key = SearchKey("oai", arm, replicate)
    for number, (last, epochs, state, params) in enumerate(tried):
        made.run(made.plan.trial(key, number, params, 0), last, epochs, state)


@pytest.fixture
def made(tmp_path: Path) -> Synthetic:
    made = Synthetic(tmp_path, question(defaults=True, incumbents=2))
    searched(made, "automargin", AUTO)
    searched(made, "fixed", FIXED)
    return made


def again(
    made: Synthetic, arm: str, kind: str, params: dict[str, Any], values: tuple[float, float], trial: int = 0
) -> None:
    key = SearchKey("oai", arm, 0)
    tasks = {
        "confirmation": lambda: made.plan.confirmations(key, params),
        "default": lambda: made.plan.defaults(key),
        "incumbent": lambda: made.plan.incumbents(key, trial, params),
    }[kind]()
    for task, value in zip(tasks, values, strict=True):
        made.run(task, value, 4, "complete")


def trained_again(made: Synthetic) -> None:
    """The winner of each search, and the published default, which was the only leader before it."""
    again(made, "automargin", "default", DEFAULTS["automargin"], (0.55, 0.57))
    again(made, "automargin", "confirmation", AUTO[2][3], (0.56, 0.58))
    again(made, "fixed", "default", DEFAULTS["fixed"], (0.46, 0.48))
    again(made, "fixed", "confirmation", FIXED[2][3], (0.54, 0.56))


def test_every_trial_costs_and_complete_ones_reach(made: Synthetic) -> None:
    frame = spent(Results.open(made.folder))
    auto, fixed = (frame.filter(arm=arm) for arm in ARMS)
    assert auto["epochs"].to_list() == [4, 5, 9] and fixed["epochs"].to_list() == [4, 6, 10, 14]
    assert auto["seconds"].to_list() == [20, 28, 48] and fixed["seconds"].to_list() == [20, 32, 52, 72]
    assert auto["best"].to_list() == [0.58, 0.58, 0.62] and fixed["best"].to_list() == [0.5, 0.5, 0.6, 0.6]
    assert fixed["leader"].to_list() == [0, 0, 2, 2]
    assert frame["honest"].equals(frame["best"]) and set(frame["basis"]) == {"search"}
    assert frame["fresh"].null_count() == len(frame) and frame["seeds"].sum() == 0


def test_to_target_in_both_directions_with_one_side_censored(made: Synthetic) -> None:
    results = Results.open(made.folder)
    frame = shares(results)
    assert frame.select("target", "of").rows() == [
        ("best", "fixed"),
        ("best", "automargin"),
        ("default", "fixed"),
        ("default", "automargin"),
    ]
    assert frame["level"].to_list() == pytest.approx([0.59, 0.61, 0.50, 0.58])
    assert frame["first_epochs"].to_list() == [9, 9, 4, 4] and frame["second_epochs"].to_list() == [10, 14, 4, 10]
    assert frame["second_reached"].to_list() == [True, False, True, True] and frame["first_reached"].all()
    assert frame["epochs_share"].to_list() == pytest.approx([0.9, 9 / 14, 1.0, 0.4])
    assert frame["seconds_share"].to_list() == pytest.approx([48 / 52, 48 / 72, 1.0, 20 / 52])
    assert frame["epochs_bound"].to_list() == ["", "at most", "", ""]
    said = sentences(results)["oai"]
    assert said[0] == (
        "automargin reached the median final best of fixed less the margin (0.590) after 9 epochs, fixed after 10 epochs: "
        "90% of the epochs and 92% of the seconds, by search values, which are optimistic."
    )
    assert "fixed not in 14 epochs: at most 64% of the epochs" in said[1]
    assert "automargin's published default in its one trial (0.580)" in said[3]


def test_what_fresh_seeds_say_goes_before_what_the_search_saw(made: Synthetic) -> None:
    trained_again(made)
    results = Results.open(made.folder)
    frame = spent(results)
    assert set(frame["basis"]) == {"fresh"}
    assert frame.filter(arm="automargin")["honest"].to_list() == pytest.approx([0.56, 0.56, 0.57])
    assert frame.filter(arm="fixed")["honest"].to_list() == pytest.approx([0.47, 0.47, 0.55, 0.55])
    assert set(frame["seeds"]) == {2}
    assert default_value(results, "oai", "fixed") == (pytest.approx(0.47), "fresh")
    first = shares(results).row(0, named=True)
    assert first["level"] == pytest.approx(0.54) and (first["first_epochs"], first["second_epochs"]) == (4, 10)
    assert sentences(results)["oai"][0].endswith("40% of the epochs and 38% of the seconds.")


def test_a_leader_that_was_not_trained_again_leaves_the_search_values_as_they_are(made: Synthetic) -> None:
    trained_again(made)
    searched(made, "fixed", [*FIXED, (0.61, 4, "complete", {"margin.epsilon": 0.6})])
    frame = spent(Results.open(made.folder))
    assert set(frame["basis"]) == {"search"} and frame["honest"].equals(frame["best"])
    again(made, "fixed", "incumbent", {"margin.epsilon": 0.6}, (0.5, 0.52), trial=4)
    fixed = spent(Results.open(made.folder)).filter(arm="fixed")
    assert set(fixed["basis"]) == {"fresh"}
    assert fixed["honest"].to_list() == pytest.approx([0.47, 0.47, 0.55, 0.55, 0.51])  # the last was luck


def test_a_leader_that_fails_on_fresh_seeds_is_not_believed(made: Synthetic) -> None:
    trained_again(made)
    for result in made.folder.glob("runs/oai/fixed/r0/confirmation-*/result.json"):
        edit_json(result, state="failed", reason="The loss was nan in epoch 4.")
    fixed = spent(Results.open(made.folder)).filter(arm="fixed")
    assert set(fixed["basis"]) == {"fresh"} and fixed["honest"].to_list() == pytest.approx([0.47] * 4)
    assert fixed["fresh"].to_list() == [pytest.approx(0.47)] * 2 + [None] * 2


def test_one_replicate_has_no_band_and_several_have_a_median_and_their_range(tmp_path: Path) -> None:
    made = Synthetic(tmp_path, question(replicates=2))
    searched(made, "automargin", AUTO)
    searched(made, "fixed", FIXED)
    made.summary()
    alone = best_so_far(Results.open(tmp_path)).filter(arm="automargin")
    assert alone["spent"].to_list() == [4, 5, 9] and alone["replicates"].to_list() == [1, 1, 1]
    assert alone["low"].null_count() == alone["high"].null_count() == 3
    searched(
        made,
        "automargin",
        [(0.3, 1, "pruned", {"margin.k_delta": 2.0}), (0.54, 4, "complete", {"margin.k_delta": 1.0})],
        1,
    )
    results = Results.open(tmp_path)
    both = best_so_far(results).filter(arm="automargin")
    # At 4 epochs the second has no value yet; neither search is over, so the curve ends where the shorter one has got to.
    assert both.select("spent", "value", "low", "high", "replicates").rows() == [
        (5.0, pytest.approx(0.56), 0.54, 0.58, 2)
    ]
    seconds = best_so_far(results, "seconds").filter(arm="automargin")
    assert seconds["spent"].to_list() == [28.0] and seconds["value"].to_list() == pytest.approx([0.56])
    # The costs of two replicates: of (9, not in 5) the upper one is censored, so nothing but a bound can be said.
    row = shares(results).row(0, named=True)
    assert not row["first_reached"] and row["second_reached"] and row["epochs_bound"] == "at least"
    assert len(to_target(results).filter(arm="automargin", target="best", of="fixed")) == 2


def test_seconds_are_those_of_what_was_trained_on(made: Synthetic) -> None:
    assert unit(Results.open(made.folder)) == "seconds"
    for result in made.folder.glob("runs/oai/*/r0/trial-*/result.json"):
        edit_json(result, trained_on={"device": "cpu", "workers": 2, "threads": 3})
    results = Results.open(made.folder)
    assert unit(results) == "CPU-seconds" and spent(results)["seconds"].max() == 72 * 6
    for result in made.folder.glob("runs/oai/fixed/r0/trial-*/result.json"):
        edit_json(result, trained_on={"device": "cuda", "workers": 2, "threads": 3})
    assert unit(Results.open(made.folder)) == "seconds"  # some on the one, some on the other
    for result in made.folder.glob("runs/oai/automargin/r0/trial-*/result.json"):
        edit_json(result, trained_on={"device": "cuda", "workers": 2, "threads": 3})
    lost = made.folder / next(made.folder.glob("runs/oai/automargin/r0/trial-0001*/result.json"))
    edit_json(lost, trained_on={})  # its process was killed, and somebody else said so
    results = Results.open(made.folder)
    assert unit(results) == "GPU-seconds" and spent(results).filter(arm="automargin")["seconds"].to_list() == [
        40,
        56,
        96,
    ]


def test_a_study_that_has_only_begun_has_cost_nothing(tmp_path: Path) -> None:
    results = Results.open(Synthetic(tmp_path, question()).folder)
    assert spent(results).is_empty() and best_so_far(results).is_empty() and to_target(results).is_empty()
    assert shares(results).is_empty() and sentences(results) == {"oai": []}
