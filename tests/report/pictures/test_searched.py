from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import polars as pl
import pytest
from optuna.importance import PedAnovaImportanceEvaluator

from marginlab.report.pictures import importance, slices
from marginlab.report.pictures.searched import tried
from marginlab.space import choice, loguniform, randint
from marginlab.values import InputError
from tests.report.pictures.made import small_study

PATHS = ("margin.epsilon", "lr")


def study_of(rows: list[tuple], replicates: int = 1):
    """Results of a study whose arm one tried these: (replicate, trial, state, value, epsilon, lr)."""
    columns = ("replicate", "trial", "state", "value")
    frame = pl.DataFrame(
        [
            {
                **dict(zip(columns, r, strict=False)),
                "dataset": "oai",
                "arm": "one",
                "params": json.dumps(dict(zip(PATHS, r[4:], strict=True))),
            }
            for r in rows
        ],
        schema={
            "replicate": pl.Int64,
            "trial": pl.Int64,
            "state": pl.String,
            "value": pl.Float64,
            "dataset": pl.String,
            "arm": pl.String,
            "params": pl.String,
        },
    )
    study = small_study(replicates=replicates)
    return SimpleNamespace(study=study, tried=tried(frame, study.arms, "oai"))


def of(rows: list[tuple]) -> tuple[Any, pl.DataFrame]:
    results = study_of(rows)
    return results, results.tried


def test_trials_become_points_by_hand():
    results = study_of(
        [
            (0, 0, "complete", 0.5, 0.25, 0.001),
            (0, 1, "complete", 0.7, 0.75, 0.01),
            (0, 2, "complete", 0.7, 0.5, 0.02),  # as good, but later
            (0, 3, "pruned", 0.9, 0.5, 0.03),  # pruned ones do not win
            (0, 4, "failed", None, 0.5, 0.04),
            (0, 5, "complete", 0.6, 0.4, 0.05),  # 0.4 is none of the options
        ]
    )
    frame = results.tried
    epsilon = frame.filter(parameter="margin.epsilon")
    assert epsilon["at"].to_list() == [0, 2, 1, 1]  # places among 0.25, 0.5, 0.75
    assert frame.filter(parameter="lr")["at"].to_list() == [0.001, 0.01, 0.02, 0.03, 0.05]
    assert epsilon["best"].to_list() == [False, True, False, False]
    assert epsilon["state"].to_list() == ["complete"] * 3 + ["pruned"]


def trials(n: int, replicates: int = 1) -> list[tuple]:
    """The learning rate decides; epsilon is noise."""
    rng = np.random.default_rng(0)
    rows = []
    for replicate in range(replicates):
        for i in range(n):
            lr = float(10 ** rng.uniform(-5, -1))
            rows.append((replicate, i, "complete", -abs(np.log10(lr) + 3), float(rng.choice([0.25, 0.5, 0.75])), lr))
    return rows


def test_importance_is_optunas_own():
    rows = trials(40)
    results = study_of([*rows, (0, 40, "pruned", 99.0, 0.25, 0.1)])
    frame = importance.importances(results.tried, results.study.arms)
    spaces = {p: s.distribution() for p, s in results.study.arms[0].space.items()}
    study = optuna.create_study(direction="maximize")
    for r in rows:
        study.add_trial(
            optuna.create_trial(params=dict(zip(PATHS, r[4:], strict=True)), distributions=spaces, value=r[3])
        )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=5 / 40)
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert dict(frame.select("parameter", "importance").rows()) == pytest.approx(expected)
    assert set(frame["trials"]) == {40} and expected["lr"] > 0.8
    picture = importance.picture(results, results.tried)
    assert [title for title, _ in picture.panels] == ["one"] and "there are: two 0." in picture.caption


def test_few_trials_have_a_sentence_and_no_bars():
    with pytest.raises(InputError, match="at least 20 complete trials of a search; there are: one 19, two 0."):
        importance.picture(*of(trials(19)))


def test_replicates_are_dots_on_one_bar():
    results = study_of(trials(20, replicates=2), replicates=2)
    frame = importance.importances(results.tried, results.study.arms)
    assert frame["replicate"].to_list() == [0, 0, 1, 1]
    assert "dots: each of them" in importance.picture(results, results.tried).caption
    ET.fromstring(importance.drawing(frame.with_columns(parameter=pl.col("parameter") + "<b>&"), ["one"], "one"))


def test_slices_mark_complete_pruned_default_and_winner():
    results = study_of(
        [(0, i, "pruned" if i % 3 == 2 else "complete", i / 10, 0.25, 0.001 * (i + 1)) for i in range(9)]
    )
    picture = slices.picture(results, results.tried)
    assert [title for title, _ in picture.panels] == ["one", "one"]
    for (_, svg), path in zip(picture.panels, PATHS, strict=True):
        ET.fromstring(svg)
        assert f">{path}<" in svg and ">val/map<" in svg
    assert "0.25" in picture.panels[0][1]  # options are named
    uses = re.findall(r'<g clip-path="[^"]*">((?:\s*<use [^>]*>)+)', picture.panels[1][1])
    assert [u.count("<use ") for u in uses] == [3, 5, 1, 1]  # pruned, complete but the winner, default, winner


def test_thousands_of_trials_stay_small_and_the_winner_is_kept():
    results = study_of(trials(3000))
    picture = slices.picture(results, results.tried)
    assert "At most 200 trials" in picture.caption and max(len(svg) for _, svg in picture.panels) < 60_000
    assert all("</svg>" in svg for _, svg in picture.panels)


def test_every_kind_of_space_has_its_axis():
    own = study_of(trials(5)).tried.filter(parameter="lr")
    for allowed in (choice(["<a>", None, "x" * 40]), loguniform(1e-5, 1e-1), randint(1, 5)):
        at = pl.Series([0.0, 1.0, 2.0, 1.0, 1.0]) + (0 if allowed == choice(["<a>", None, "x" * 40]) else 1)
        ET.fromstring(slices.drawing(own.with_columns(at=at), allowed, 0, "a<b>", "val/map", (-3.0, 0.0)))


def test_logarithmic_axes_have_plain_numbers():
    assert slices._decades(1e-5, 1e-1) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert slices._decades(0.002, 0.5) == [0.01, 0.1]
    assert slices._decades(0.2, 0.9) == [0.2, 0.9]
    assert len(slices._decades(1e-12, 1.0)) == 5
    svg = slices.drawing(
        study_of(trials(5)).tried.filter(parameter="lr"), loguniform(1e-5, 1e-1), 0, "lr", "v", (-3.0, 0.0)
    )
    assert ">0.001<" in svg and "mathdefault" not in svg


def test_no_trials_have_a_sentence():
    with pytest.raises(InputError, match="No trial has ended"):
        slices.picture(*of([]))
