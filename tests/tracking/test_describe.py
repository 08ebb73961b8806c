from __future__ import annotations

import math

from marginlab.margins import AutoMargin
from marginlab.tracking import describe
from marginlab.training import Training
from marginlab.values import to_json


def test_flatten_uses_the_paths_of_a_space():
    flat = describe.flatten(to_json(Training(margin=AutoMargin(k_delta=4))))
    assert flat["margin.type"] == "AutoMargin" and flat["margin.k_delta"] == "4.0"
    assert flat["augment.gamma"] == "[0.5, 1.5]" and flat["epochs"] == "100"
    assert "type" not in flat and all(isinstance(v, str) for v in flat.values())


def test_flatten_names_the_module_of_foreign_types_and_cuts_long_text():
    flat = describe.flatten({"type": "marginlab.training:Training", "loss": {"type": "mine:Loss", "text": "x" * 7000}})
    assert flat == {"loss.type": "mine:Loss", "loss.text": "x" * 6000}


def test_run_names():
    labels = {"kind": "trial", "dataset": "oai", "arm": "ada/auto", "trial": 7, "replicate": 1, "fold": 2}
    one = {"search": {"replicates": 1, "folds": [0]}}
    several = {"search": {"replicates": 2, "folds": [0, 2]}}
    assert describe.run_name(labels, one) == "oai ada/auto trial 07"
    assert describe.run_name(labels, several) == "oai ada/auto replicate 1 trial 07 fold 2"
    confirmation = {**labels, "kind": "confirmation", "seed_index": 4}
    assert describe.run_name(confirmation, one) == "oai ada/auto confirmation seed 4 fold 2"


def test_points_are_finite_numbers_under_legal_names():
    row = {"epoch": 3, "time": 1.0, "val/map": 0.5, "a": math.nan, "b": math.inf, "c": None, "d": True, "map@5": 1}
    assert describe.points(row) == {"val/map": 0.5, "map_5": 1.0}


def test_final_points():
    assert describe.final_points({"best": 0.8, "test": {"test/map": 0.7, "cmc": 0.6}}) == {
        "best/val_map": 0.8,
        "test/map": 0.7,
        "test/cmc": 0.6,
    }
    assert describe.final_points({"best": None, "test": {}}) == {}


def test_where_margins_ended():
    last = {"epoch": 9, "margin/epsilon": 0.21418, "margin/beta": math.nan, "val/map": 0.5}
    assert describe.final_margins(last) == {"final/epsilon": 0.21418}
    assert describe.margins_text(last) == "epsilon 0.2142"
    assert describe.final_margins({}) == {} and describe.margins_text({"val/map": 1.0}) == ""
