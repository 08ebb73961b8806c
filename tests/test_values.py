import subprocess
import sys

import pytest

from marginlab.losses import AdaTriplet
from marginlab.margins import AutoMargin
from marginlab.training import Run, Training
from marginlab.values import InputError, at_path, fingerprint, from_json, stable_seed, to_json, value, with_path


@value
class Inner:
    weight: float = 1.0
    name: str = "a"

    def check(self) -> None:
        if self.weight < 0:
            raise InputError("Inner.weight must not be negative.")


@value
class Outer:
    inner: Inner = Inner()
    numbers: tuple = (1, 2)
    limit: int | None = None


def test_unknown_field_is_refused_in_a_sentence_with_a_guess() -> None:
    with pytest.raises(
        InputError, match=r"Inner has no field 'wieght'; its fields are weight, name\. Did you mean 'weight'\?"
    ):
        Inner(wieght=1)


@pytest.mark.parametrize(
    "bad", [{"weight": "1"}, {"weight": True}, {"name": 3}, {"weight": float("nan")}, {"weight": -1}]
)
def test_wrong_values_are_refused(bad: dict) -> None:
    with pytest.raises(InputError, match="Inner"):
        Inner(**bad)


def test_integers_and_floats_give_one_fingerprint() -> None:
    assert Inner(weight=1) == Inner(weight=1.0)
    assert fingerprint(Inner(weight=1)) == fingerprint(Inner(weight=1.0)) != fingerprint(Inner(weight=2))


def test_round_trip_through_json() -> None:
    training = Training(loss=AdaTriplet(lam=0.3), margin=AutoMargin(k_delta=4), epochs=3)
    assert from_json(to_json(training)) == training
    run = Run("oai", "abc", training, fold=1, seed=7)
    assert from_json(to_json(run)) == run and from_json(to_json(run)).id == run.id


def test_types_that_are_no_values_are_not_built() -> None:
    with pytest.raises(InputError, match="not a value"):
        from_json({"type": "subprocess:Popen", "args": ["true"]})


def test_paths_reach_into_values_and_check_again() -> None:
    changed = with_path(Outer(), "inner.weight", 3)
    assert changed == Outer(inner=Inner(weight=3.0)) and at_path(changed, "inner.weight") == 3.0
    with pytest.raises(InputError, match=r"The path 'inner.wait' leads nowhere"):
        with_path(Outer(), "inner.wait", 1)
    with pytest.raises(InputError, match="negative"):
        with_path(Outer(), "inner.weight", -1)


def test_seeds_and_fingerprints_do_not_depend_on_the_process() -> None:
    code = (
        "from marginlab.values import stable_seed, fingerprint; from marginlab.training import Training;"
        "print(stable_seed('a', 1), fingerprint(Training()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "platform", "PYTHONHASHSEED": "7"},
    )
    assert out.stdout.split() == [str(stable_seed("a", 1)), fingerprint(Training())]


def test_pythons_own_platform_module_is_not_shadowed() -> None:
    code = "import sys; sys.path.insert(0, '.'); import platform; print(platform.python_version())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ".".join(map(str, sys.version_info[:3]))


def test_an_option_that_came_later_leaves_old_fingerprints_as_they_were() -> None:
    assert to_json(AdaTriplet()) == {"type": "marginlab.losses.adatriplet:AdaTriplet", "lam": 1.0, "mining": "semihard"}
    assert from_json(to_json(AdaTriplet(pull=0.5))) == AdaTriplet(pull=0.5)
    assert from_json(to_json(AdaTriplet())) == AdaTriplet()
    assert len({fingerprint(a) for a in (AdaTriplet(), AdaTriplet(smooth=True), AdaTriplet(pair="lse"))}) == 3
