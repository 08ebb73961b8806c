import dataclasses
from typing import Any

import pytest

from marginlab.declaration import declare, load_study, read_plan, redeclarations, redeclare
from marginlab.losses import AdaTriplet, Triplet
from marginlab.margins import AutoMargin, FixedMargin
from marginlab.plan import Plan
from marginlab.space import choice, loguniform, randint, uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Resources, Search, Study
from marginlab.training import Training
from marginlab.values import InputError, fingerprint, from_json, to_json

AUTO = Arm(
    "ada/auto",
    Training(loss=AdaTriplet(), margin=AutoMargin()),
    space={"margin.k_delta": choice([1, 2, 4]), "loss.lam": uniform(0.2, 2)},
)
FIXED = Arm(
    "ada/fixed", Training(loss=AdaTriplet(), margin=FixedMargin()), space={"margin.epsilon": uniform(0.05, 0.6)}
)


def a_study(**changes: Any) -> Study:
    base: dict[str, Any] = {
        "name": "s",
        "datasets": [Dataset("oai", root="/data/oai"), Dataset("cxr14", root="/data/cxr")],
        "arms": [AUTO, FIXED],
        "search": Search(epochs_budget=12, max_epochs=4),
        "confirmation": Confirmation(seeds=3, folds=2),
        "comparison": Comparison(contrast=("ada/auto", "ada/fixed")),
    }
    return Study(**{**base, **changes})


def a_plan(**changes: Any) -> Plan:
    return Plan(a_study(**changes), {"oai": "f00", "cxr14": "ba5"})


def test_a_study_round_trips_through_json() -> None:
    study = a_study()
    again = from_json(to_json(study))
    assert again == study and fingerprint(again) == fingerprint(study)


@pytest.mark.parametrize("space", [choice(["a", 1, 2.5]), uniform(0, 1), loguniform(1e-4, 1), randint(1, 5)])
def test_spaces_are_optuna_distributions_and_round_trip(space: Any) -> None:
    assert from_json(to_json(space)).distribution() == space.distribution()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: a_study(nmae="x"), "Study has no field 'nmae'.*Did you mean 'name'"),
        (lambda: a_study(arms=[]), "at least one Arm"),
        (lambda: a_study(datasets=[]), "at least one Dataset"),
        (lambda: a_study(arms=[AUTO, AUTO]), "two arms are called 'ada-auto'"),
        (
            lambda: a_study(datasets=[Dataset("oai", root="a"), Dataset("oai", root="b")]),
            "two datasets are called 'oai'",
        ),
        (
            lambda: a_study(comparison=Comparison(contrast=("ada/auto", "nothing"))),
            "names 'nothing'; the arms are ada/auto, ada/fixed",
        ),
        (
            lambda: Arm("a", Training(), space={"margin.k_detla": choice([1])}),
            "Arm 'a': The path 'margin.k_detla' leads nowhere.*k_delta",
        ),
        (lambda: Arm("a", Training(), space={"margin.k_delta": choice([0.5, 2])}), "Arm 'a'"),
        (lambda: Arm("a", Training(), space={"margin.k_delta": choice([1, 4])}), "lies outside its space"),
        (lambda: Arm("a", Training(), space={"margin.k_delta": 3}), "must be choice"),
        (lambda: Arm("a", Training(), start=[{"loss.lam": 1.0}]), "not in the space"),
        (lambda: Arm("Ä b", Training()), "small letters"),
        (lambda: Arm("../x", Training()), "small letters"),
        (lambda: Search(epochs_budget=3, max_epochs=4), "does not pay for one trial"),
        (lambda: Search(epochs_budget=30, max_epochs=4, folds=(0, 5)), "0 to 4"),
        (lambda: Search(epochs_budget=30, max_epochs=4, objective="train/loss"), "one of val/map, .*not 'train/loss'"),
        (
            lambda: Arm(
                "a",
                Training(),
                space={"batch_size": choice([60, 128]), "per_identity": choice([4, 8])},
                start=[{"batch_size": 60, "per_identity": 8}],
            ),
            "does not go together",
        ),
        (lambda: Dataset("a/b", root="x"), "no / in it"),
        (lambda: Resources(launcher="thread"), "'auto', 'inline' or 'train'"),
        (lambda: Resources(workers=2, launcher="inline"), "use launcher='train'"),
        (lambda: Resources(gpus="two"), "number or 'auto'"),
        (lambda: Resources(gpus=1.5), "from 0 to 1, not 1.5: .* say workers=4, gpus=1"),
        (lambda: Resources(gpus=-1), "from 0 to 1, not -1"),
        (lambda: Resources(cache="gpu"), "Resources.cache must be one of 'auto', 'device', 'host', not 'gpu'"),
        (lambda: Resources(chunk=0), "Resources.chunk must be at least 1 image"),
        (lambda: Dataset("oai"), "either root"),
        (lambda: Dataset("oai", root="x", label="knee"), "subject-side"),
        (lambda: Confirmation(seeds=0), "at least 1"),
        (lambda: Comparison(primary="val/map"), "must be a test figure"),
        (lambda: Training(batch_size=10, per_identity=4), "multiple"),
        (lambda: Training(loss=AdaTriplet(), margin=FixedMargin(beta=None)), "beta"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_starts_begin_with_the_published_default() -> None:
    arm = dataclasses.replace(AUTO, start=({"loss.lam": 0.5},))
    assert arm.starts() == [{"margin.k_delta": 2.0, "loss.lam": 1.0}, {"margin.k_delta": 2.0, "loss.lam": 0.5}]


def test_the_plan_counts_and_seeds() -> None:
    plan = a_plan()
    assert [str(k) for k in plan.searches()] == [
        "oai/ada/auto/r0",
        "oai/ada/fixed/r0",
        "cxr14/ada/auto/r0",
        "cxr14/ada/fixed/r0",
    ]
    auto, fixed = plan.searches()[:2]
    runs = plan.confirmations(auto, {"margin.k_delta": 4, "loss.lam": 1.0})
    assert len(runs) == 6 and len({t.run.id for t in runs}) == 6 and len({t.folder for t in runs}) == 6
    assert runs[0].run.training.margin == AutoMargin(k_delta=4) and runs[0].run.training.epochs == 4
    # Arms are paired by seed, and no confirmation seed can be a search seed.
    other = plan.confirmations(fixed, {"margin.epsilon": 0.1})
    assert [t.run.seed for t in runs] == [t.run.seed for t in other]
    trials = [plan.trial(auto, n, {"margin.k_delta": 2, "loss.lam": 1.0}, 0) for n in range(50)]
    assert len({t.run.seed for t in trials}) == 50
    assert all(t.run.seed % 2 == 0 for t in trials) and all(t.run.seed % 2 == 1 for t in runs)


def test_a_study_may_grow_but_not_change(tmp_path: Any) -> None:
    declare(tmp_path, a_plan())
    assert read_plan(tmp_path) == a_plan()
    other_space = dataclasses.replace(FIXED, space={"margin.epsilon": uniform(0.05, 0.9)})
    with pytest.raises(
        InputError,
        match=r"(?s)arm ada/fixed: space.margin.epsilon.high: was 0.6, is 0.9.*new name, or begin it anew .* --fresh",
    ):
        declare(tmp_path, a_plan(arms=[AUTO, other_space]))
    with pytest.raises(InputError, match="comparison.margin: was 0.01, is 0.02"):
        declare(tmp_path, a_plan(comparison=Comparison(contrast=("ada/auto", "ada/fixed"), margin=0.02)))
    with pytest.raises(InputError, match="dataset oai: fingerprint"):
        declare(tmp_path, Plan(a_study(), {"oai": "f01", "cxr14": "ba5"}))
    assert read_plan(tmp_path) == a_plan()
    third = Arm("triplet", Training(loss=Triplet(), margin=FixedMargin(beta=None)))
    larger = a_plan(arms=[FIXED, AUTO, third], search=Search(epochs_budget=40, max_epochs=4))
    declare(tmp_path, larger)
    assert read_plan(tmp_path) == larger


def test_a_comparison_is_declared_anew_and_the_change_is_kept(tmp_path: Any) -> None:
    declare(tmp_path, a_plan())
    wider = Comparison(contrast=("ada/auto", "ada/fixed"), margin=0.02)
    with pytest.raises(InputError, match=r"--fresh, which moves the old one aside, or record .* --redeclare STUDY.py"):
        declare(tmp_path, a_plan(comparison=wider))
    assert redeclarations(tmp_path) == []
    assert redeclare(tmp_path, a_study(comparison=wider)) and not redeclare(tmp_path, a_study(comparison=wider))
    result = tmp_path / "runs" / "oai" / "x" / "result.json"
    result.parent.mkdir(parents=True)
    result.write_text('{"test": {"test/map": 0.5}}')
    assert redeclare(tmp_path, a_study(comparison=Comparison(primary="test/map_12m")))
    first, second = redeclarations(tmp_path)
    assert (first["before"]["margin"], first["after"]["margin"], first["test_opened"]) == (0.01, 0.02, False)
    assert (second["before"], second["after"]["contrast"], second["test_opened"]) == (first["after"], None, True)
    assert read_plan(tmp_path) == a_plan(comparison=Comparison(primary="test/map_12m"))
    declare(tmp_path, a_plan(comparison=Comparison(primary="test/map_12m")))  # the study goes on, and does not forget
    assert len(redeclarations(tmp_path)) == 2


def test_nothing_but_the_comparison_is_declared_anew(tmp_path: Any) -> None:
    declare(tmp_path, a_plan())
    other = Comparison(margin=0.5)
    with pytest.raises(InputError, match=r"(?s)differs in more:\n  seed: was 0, is 7"):
        redeclare(tmp_path, a_study(comparison=other, seed=7))
    third = Arm("triplet", Training(loss=Triplet(), margin=FixedMargin(beta=None)))
    new_arm = a_study(arms=[FIXED, AUTO, third], comparison=Comparison(contrast=("triplet", "ada/fixed")))
    with pytest.raises(InputError, match="the contrast names 'triplet'"):
        redeclare(tmp_path, new_arm)
    result = tmp_path / "runs" / "result.json"
    result.parent.mkdir()
    result.write_text('{"test": {"test/map": 0.5}}')
    sure = Comparison(contrast=("ada/auto", "ada/fixed"), confirmatory=True)
    with pytest.raises(InputError, match="after the test split was opened cannot be confirmatory"):
        redeclare(tmp_path, a_study(comparison=sure, confirmation=Confirmation(seeds=7, folds=1)))
    assert read_plan(tmp_path) == a_plan() and redeclarations(tmp_path) == []


def test_a_study_is_called_confirmatory_only_where_it_can_be() -> None:
    sure = Comparison(contrast=("ada/auto", "ada/fixed"), confirmatory=True)
    with pytest.raises(
        InputError, match="5 seeds cannot reach p = 0.025 .0.05 over 2 datasets. .* 0.062 at best; 7 seeds can"
    ):
        a_study(comparison=sure, confirmation=Confirmation(seeds=5, folds=1))
    with pytest.raises(InputError, match="needs a contrast"):
        a_study(comparison=Comparison(confirmatory=True), confirmation=Confirmation(seeds=9))
    able = a_study(comparison=sure, confirmation=Confirmation(seeds=7, folds=1))
    assert to_json(able)["comparison"]["confirmatory"] is True
    assert "confirmatory" not in to_json(a_study())["comparison"]  # studies of before keep their fingerprints


def test_names_with_dots_are_no_obstacle_to_growing(tmp_path: Any) -> None:
    first, second = (dataclasses.replace(FIXED, name=name) for name in ("v1.0", "v1.5"))
    declare(tmp_path, a_plan(arms=[first], comparison=Comparison()))
    declare(tmp_path, a_plan(arms=[first, second], comparison=Comparison()))
    assert [a.name for a in read_plan(tmp_path).study.arms] == ["v1.0", "v1.5"]


STUDY = """
from marginlab.study import *
from marginlab.training import Training
study = Study(
    name="x",
    datasets=[Dataset("oai", root="r")],
    arms=[Arm("a", Training())],
    search=Search(epochs_budgte=4, max_epochs=2),
)
"""


def test_a_fault_in_a_study_file_names_file_and_line(tmp_path: Any) -> None:
    path = tmp_path / "mine.py"
    path.write_text(STUDY)
    with pytest.raises(InputError, match=r"mine.py, line 8: Search has no field 'epochs_budgte'.*epochs_budget"):
        load_study(str(path))
    path.write_text(STUDY.replace("budgte", "budget"))
    assert load_study(str(path)).name == "x"
    with pytest.raises(InputError, match="defines no Study called 'small'; those it defines: study"):
        load_study(f"{path}:small")
    with pytest.raises(InputError, match="no study file"):
        load_study(str(tmp_path / "none.py"))
    path.write_text("import no_such_module")
    with pytest.raises(InputError, match="line 1: ModuleNotFoundError"):
        load_study(str(path))
