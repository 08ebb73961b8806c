"""What an analyst gets: three files with documented columns, the same in both formats, whatever state the study is in."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from marginlab.cli import main
from marginlab.export import export
from marginlab.plan import SearchKey
from marginlab.results import LABELS, RUNS, TRIALS, Results
from marginlab.search import Book, Ticket
from marginlab.space import choice, uniform
from marginlab.study import Arm, Comparison
from marginlab.training import Training
from marginlab.values import InputError
from tests.report.synthetic import Synthetic, study

PARAMS = ["param/margin.epsilon", "param/margin.k_delta"]


def book(made: Synthetic) -> dict[str, Ticket]:
    """A storage with, dealt round-robin: a complete trial, a failed one, one that goes on, and one never reported."""
    held = Book(made.plan, f"sqlite:///{made.folder / 'optuna.db'}")
    tickets = {t: held.ask(t) for t in ("complete", "failed", "running", "asked")}
    for step, value in enumerate([0.2, 0.3, 0.4, 0.5], start=1):
        held.report("complete", step, value)
    held.tell("complete", "complete")
    held.report("failed", 1, 0.1)
    held.tell("failed", "failed", "The loss was nan.")
    held.report("running", 1, 0.25)
    assert all(isinstance(t, Ticket) for t in tickets.values())
    return tickets  # type: ignore[return-value]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unfinished study: three of its six searches have begun, one run has not ended."""
    made = Synthetic(tmp_path_factory.mktemp("workspace") / "studies" / "demo")
    book(made)
    made.trials(SearchKey("oai", "automargin", 0))
    made.run(made.plan.trial(SearchKey("oai", "fixed", 0), 0, {"margin.epsilon": 0.25}, 0), 0.3, 2, None)
    return made.folder


def test_every_trial_is_a_row(folder: Path) -> None:
    trials = Results.open(folder).trials()
    assert dict(trials.schema) == {**TRIALS, PARAMS[0]: pl.Float64, PARAMS[1]: pl.Float64}
    shown = trials.select("dataset", "arm", "replicate", "trial", "state", "value", "epochs", "reason", *PARAMS)
    assert shown.rows() == [
        ("oai", "automargin", 0, 0, "complete", 0.5, 4, "", None, 2.0),
        ("oai", "fixed", 0, 0, "failed", None, 2, "The loss was nan.", 0.25, None),  # died in its second epoch
        ("oai", "triplet", 0, 0, "unfinished", None, 1, "", 0.25, None),
        ("knees", "automargin", 0, 0, "unfinished", None, 0, "", None, 2.0),
    ]
    assert trials["search"][1] == "oai/fixed/r0" and not trials["modelled"].any()
    assert json.loads(trials["params"][0]) == {"margin.k_delta": 2.0}
    assert trials["ended"].is_null().to_list() == [False, False, True, True]


def test_a_pruned_trial_has_the_value_it_was_pruned_at(tmp_path: Path) -> None:
    made = Synthetic(tmp_path / "demo")
    held = Book(made.plan, f"sqlite:///{tmp_path / 'demo' / 'optuna.db'}")
    held.ask("t")
    held.report("t", 1, 0.125)
    held.tell("t", "pruned")
    assert Results.open(made.folder).trials().select("state", "value", "epochs").rows() == [("pruned", 0.125, 1)]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_times_of_trials_are_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        made = Synthetic(tmp_path / "demo")
        before = datetime.now(UTC)
        book(made)
        first = Results.open(made.folder).trials().row(0, named=True)
        assert before <= first["started"] <= first["ended"] <= datetime.now(UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_columns_of_parameters_follow_the_spaces_not_the_trials(tmp_path: Path) -> None:
    arms = [
        Arm(
            "a",
            Training(),
            {"batch_size": choice([64, 128]), "margin.k_delta": choice([1, 2.0]), "lr": uniform(1e-5, 1)},
        ),
        Arm("b", Training(), {"lr": uniform(1e-5, 2)}),
    ]
    made = Synthetic(tmp_path / "demo", study(arms=arms, comparison=Comparison()))
    trials = Results.open(made.folder).trials()  # nothing has been tried
    assert len(trials) == 0
    kinds = {"batch_size": pl.Int64, "lr": pl.Float64, "margin.k_delta": pl.Float64}
    assert dict(trials.schema) == {**TRIALS, **{f"param/{k}": v for k, v in kinds.items()}}


def test_both_formats_hold_the_same(folder: Path, tmp_path: Path) -> None:
    results = Results.open(folder)
    counts = export(results, tmp_path / "deep" / "p")
    assert {p.name: n for p, n in counts.items()} == {"trials.parquet": 4, "runs.parquet": 4, "epochs.parquet": 16}
    export(results, tmp_path / "c", "csv")
    for name in ("trials", "runs", "epochs"):
        parquet = pl.read_parquet(tmp_path / "deep" / "p" / f"{name}.parquet")
        csv = pl.read_csv(tmp_path / "c" / f"{name}.csv", try_parse_dates=True)
        assert csv.columns == parquet.columns and len(csv) == len(parquet)
        moments = [c for c, kind in parquet.schema.items() if isinstance(kind, pl.Datetime)]
        assert moments == {"trials": ["started", "ended"], "runs": ["ended"], "epochs": ["time"]}[name]
        for column in moments:
            assert csv[column].dt.epoch("ms").to_list() == parquet[column].dt.epoch("ms").to_list()
        numbers = [c for c, kind in parquet.schema.items() if kind.is_numeric()]
        for column in numbers:
            assert csv[column].cast(pl.Float64, strict=False).fill_nan(None).to_list() == (
                parquet[column].cast(pl.Float64).fill_nan(None).to_list()
            ), column
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["epochs.csv", "runs.csv", "trials.csv"]


def test_the_columns_are_as_documented_and_join(folder: Path, tmp_path: Path) -> None:
    """None of them holds a person's identifier or an image's name: an export may be handed on."""
    export(Results.open(folder), tmp_path)
    trials, runs, epochs = (pl.read_parquet(tmp_path / f"{n}.parquet") for n in ("trials", "runs", "epochs"))
    assert trials.columns == [*TRIALS, *PARAMS] and runs.columns == list(RUNS)
    assert epochs.columns[: len(LABELS) + 2] == [*LABELS, "epoch", "time"]
    assert all(c.partition("/")[0] in ("val", "train", "margin", "time") for c in epochs.columns[len(LABELS) + 2 :])
    both = trials.join(runs, on=["dataset", "arm", "replicate", "trial"])
    assert len(both) == 2  # of three trials' runs in one search, one is in this storage; and the unfinished one
    assert len(epochs.join(runs, on="id")) == len(epochs)
    assert epochs["time"].min() == datetime.fromtimestamp(1_700_000_003.5, UTC)


def test_an_older_export_is_replaced_and_what_cannot_be_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("old")
    export(Results.open(folder), tmp_path, "csv")
    assert (tmp_path / "runs.csv").read_text().startswith("id,kind,dataset")
    with pytest.raises(InputError, match="There is no format 'xlsx'; there are parquet and csv"):
        export(Results.open(folder), tmp_path, "xlsx")
    for out in (tmp_path / "runs.csv", tmp_path / "runs.csv" / "deeper"):
        with pytest.raises(InputError, match=r"runs\.csv is a file: name a folder"):
            export(Results.open(folder), out)


def test_a_study_without_its_storage_has_no_trials(tmp_path: Path) -> None:
    whole = Synthetic(tmp_path / "demo").whole()
    counts = export(Results.open(whole), tmp_path / "out")
    assert [counts[tmp_path / "out" / f"{n}.parquet"] for n in ("trials", "runs")] == [0, 36]


def test_the_command_says_what_to_do_next(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*argv: str) -> int:
        with pytest.raises(SystemExit) as end:
            main(["export", *argv, "--workspace", str(folder.parents[1])])
        return int(end.value.code or 0)

    assert call("demo", "--out", "tables", "--format", "csv") == 0
    out = capsys.readouterr().out
    assert "tables/trials.csv: 4 rows" in out and "Next: " in out and "pl.read_csv('tables/trials.csv'" in out
    assert call("demo", "--out", "tables") == 0
    said = capsys.readouterr().out.partition("Next: ")[2]
    code = said[said.index('"') + 1 : said.rindex('"')]
    exec(code.replace("print(", "assert len("))  # what it says to do works
    assert call("nothing", "--out", "tables") == 2 and "There is no study 'nothing'" in capsys.readouterr().err
    assert call("demo", "--out", "tables", "--format", "json") == 2
    assert call("demo", "--out", "tables/runs.csv") == 2
    assert "Traceback" not in capsys.readouterr().err
