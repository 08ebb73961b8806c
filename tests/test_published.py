from __future__ import annotations

import polars as pl
import pytest

from marginlab import tables
from marginlab.data.oai import OAI
from marginlab.published import SCHEMA, published
from marginlab.results import Results
from marginlab.study import Dataset
from tests.report.synthetic import Synthetic


def test_the_headline_figures_of_the_paper():
    """By hand from the published tables: the best row of each and its counterpart."""
    oai, cxr = published(Dataset("oai", root="/raw")), published(Dataset("cxr14", root="/raw"))
    assert oai is not None and cxr is not None and (len(oai), len(cxr)) == (147, 273)

    def cell(frame, metric, name, horizon):
        found = frame.filter(metric=metric, name=name).filter(pl.col("horizon").eq_missing(horizon))
        return found.select("mean", "se").row(0)

    assert cell(oai, "mAP", "AdaTriplet", None) == (96.9, 0.1)
    assert cell(oai, "CMC top 1", "Contrastive", 24) == (97.0, 0.1)  # the misprinted cell
    assert cell(cxr, "mAP@R", "WAT", 144) == (47.0, pytest.approx(cell(cxr, "mAP@R", "WAT", 144)[1]))
    assert sorted(h for h in oai["horizon"].unique() if h is not None) == [12, 24, 36, 48, 72, 96]


def test_the_published_columns_cannot_both_be_what_the_code_computes():
    """What the caveat says: on one ranking mAP@R is never below allshots CMC-1, and in 136 of 140 published cells it is."""
    below = 0
    for name in ("oai", "cxr14"):
        frame = published(Dataset(name, root="/raw"))
        wide = frame.pivot("metric", index=["name", "horizon"], values="mean")
        below += int((wide["mAP@R"] < wide["CMC top 1"]).sum())
    assert below == 136


def test_a_dataset_is_known_by_its_reader():
    assert published(Dataset("knees", root="/raw", reader=OAI())) is not None
    assert published(Dataset("knees", root="/raw")) is None
    assert published(Dataset("oai", root="/raw", reader={"my": "reader"})) is None


def test_ours_stand_beside_theirs_in_percent(tmp_path):
    results = Results.open(Synthetic(tmp_path).whole())
    frame = tables.beside_published(results)
    assert frame.schema == pl.Schema(SCHEMA) and frame["dataset"].unique().to_list() == ["oai"]
    ours = frame.filter(source="here", name="automargin", metric="mAP").filter(pl.col("horizon").is_null())
    assert ours.select("mean", "se", "n").row(0) == pytest.approx((92.0, 100 * 0.02 / 3**0.5, 3))
    readings = frame.filter(source="here", metric="CMC top 1")["reading"].unique(maintain_order=True).to_list()
    assert readings == ["first answer", "allshots"]
    assert set(frame.filter(source="here")["horizon"]) == {None, 12, 24}  # what the study has of the published ones


def test_nothing_measured_gives_no_table(tmp_path):
    Synthetic(tmp_path)
    assert tables.beside_published(Results.open(tmp_path)).is_empty()
