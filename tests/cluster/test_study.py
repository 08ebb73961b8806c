"""Studies from end to end: Optuna, run folders and MLflow agree, and Ray is left as it was found."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import optuna
import polars as pl
import pytest
import ray
from optuna.trial import TrialState
from ray.util import placement_group_table

from marginlab import files, running
from marginlab.cli import main
from marginlab.cost import spent, unit
from marginlab.data.packed import PackedDataset
from marginlab.data.page import write_contact_sheet
from marginlab.declaration import load_study
from marginlab.files import read_json
from marginlab.replay import find_data, find_run, replay, summary
from marginlab.results import Results
from marginlab.running import Outcome, run_study
from marginlab.runs import RunFolder
from marginlab.study import Resources, Study
from marginlab.values import InputError
from marginlab.watching import snapshot
from marginlab.workspace import Workspace
from tests.cluster import studies
from tests.renaming import write_renamed
from tests.searching import contents, holding

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
ROOT = Path(__file__).parents[2]


def run(
    study: Study, home: Path, meanwhile: Callable[[str], object] = lambda step: None
) -> tuple[Outcome, list[str], list[str]]:
    steps: list[str] = []
    troubles: list[str] = []

    def stepped(step: str) -> None:
        steps.append(step)
        meanwhile(step)

    outcome = run_study(
        study, Workspace.at(home), on_step=stepped, progress=lambda *_: None, on_trouble=troubles.append
    )
    return outcome, steps, troubles


@pytest.fixture(scope="session")
def secret(home: Path) -> str:
    """What the names of all subjects and files of the study ``inline`` contain: random, too long to occur by chance."""
    dataset = studies.inline.datasets[0]
    raw = Workspace.at(home).raw(dataset)
    raw.parent.mkdir(parents=True, exist_ok=True)
    return write_renamed(dataset.phantom, raw)


@pytest.fixture(scope="session")
def inline(ray_here: None, home: Path, secret: str) -> tuple[Outcome, list[str], list[str]]:
    packed = Workspace.at(home).packed(studies.inline.datasets[0])
    return run(studies.inline, home, lambda s: s == "search" and write_contact_sheet(PackedDataset.open(packed)))


@pytest.fixture(scope="session")
def nested(inline: Any, home: Path) -> tuple[Outcome, list[str], list[str]]:
    return run(load_study(f"{Path(studies.__file__)}:nested"), home)  # its network and reader are the file's own


def trials_of(folder: Path) -> dict[tuple[str, int], optuna.trial.FrozenTrial]:
    storage = optuna.storages.get_storage(f"sqlite:///{folder / 'optuna.db'}")
    return {(s.study_name, t.number): t for s in storage.get_all_studies() for t in storage.get_all_trials(s._study_id)}


def folders_of(folder: Path, kind: str) -> list[RunFolder]:
    found = [RunFolder.open(p.parent) for p in sorted(folder.glob("runs/**/run.json"))]
    return [f for f in found if f.labels["kind"] == kind]


def key_of(folder: RunFolder) -> tuple[str, int]:
    labels = folder.labels
    return f"{labels['dataset']}/{labels['arm']}/r{labels['replicate']}", labels["trial"]


def agree_with_optuna(folder: Path) -> dict[tuple[str, int], optuna.trial.FrozenTrial]:
    trials = trials_of(folder)
    runs = {key_of(f): f for f in folders_of(folder, "trial")}
    assert runs.keys() == trials.keys()
    for key, trial in trials.items():
        result = runs[key].result()
        assert result is not None
        assert trial.state == STATES[result["state"]], key
        rows = {r["epoch"]: r["val/map"] for r in runs[key].epochs() if r["epoch"] > 0}
        assert trial.intermediate_values == rows
        if trial.state == TrialState.COMPLETE:
            assert trial.value == rows[max(rows)] == result["last"]
    return trials


def agree_with_mlflow(folder: Path, workspace: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(folder.name)
    runs = client.search_runs([experiment.experiment_id])
    by_id = {r.data.tags["marginlab.run_id"]: r for r in runs if "marginlab.run_id" in r.data.tags}
    folders = [RunFolder.open(p.parent) for p in folder.glob("runs/**/run.json")]
    assert len(runs) == len(folders) + 1 and by_id.keys() == {f.run.id for f in folders}
    for f in folders:
        run, result = by_id[f.run.id], f.result()
        assert result is not None and run.data.tags["state"] == result["state"]
        assert run.info.status == ("FAILED" if result["state"] == "failed" else "FINISHED")
        for metric in ("val/map", "train/loss", "margin/epsilon"):
            points = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]
            assert sorted(points) == [(r["epoch"], r[metric]) for r in f.epochs() if metric in r]


def test_every_state_is_the_same_everywhere(inline: Any, home: Path) -> None:
    outcome, steps, troubles = inline
    assert troubles == []
    assert steps == ["phantoms", "prepare", "ray", "estimate", "search", "confirmation", "tracking", "report", "done"]
    trials = agree_with_optuna(outcome.folder)
    agree_with_mlflow(outcome.folder, home)
    states = {s: sum(t.state == s for t in trials.values()) for s in STATES.values()}
    assert states[TrialState.COMPLETE] > 0 and states[TrialState.FAIL] > 0  # a pruned one is the nested study's part
    failed = trials[("oai/fixed/r0", 1)]
    assert failed.state == TrialState.FAIL and "The loss was" in failed.user_attrs["reason"]
    shot = snapshot(outcome.folder)
    assert shot.step == "done" and shot.confirmed == shot.confirmations == 8 and shot.epochs_done == shot.epochs_total
    assert any("oai fixed trial 01: The loss was" in str(failure) for failure in shot.failures)


def test_budgets_are_kept_and_searches_start_with_the_default(inline: Any) -> None:
    outcome, *_ = inline
    summary = read_json(outcome.folder / "summary.json")
    for s in summary["searches"].values():
        assert s["epochs"] <= 8 and 8 - s["epochs"] < 2
    trials = trials_of(outcome.folder)
    assert trials[("oai/auto/r0", 0)].params == {"margin.k_delta": 2.0}
    assert trials[("oai/fixed/r0", 0)].params == {"margin.epsilon": 0.25, "lr": 1e-3}
    assert set(summary["steps"]) >= {"phantoms", "prepare", "ray", "search", "confirmation", "report", "tracking"}


def test_the_test_split_is_opened_in_confirmation_alone(inline: Any) -> None:
    outcome, *_ = inline
    for f in folders_of(outcome.folder, "trial"):
        assert f.embeddings("test") is None and f.result()["test"] == {}  # type: ignore[index]
    confirmations = folders_of(outcome.folder, "confirmation")
    assert len(confirmations) == 2 * 2 * 2
    for f in confirmations:
        assert f.embeddings("test") is not None and 0 < f.result()["test"]["test/map"] <= 1  # type: ignore[index]
    seeds = {f.run.seed for f in confirmations}
    assert len(seeds) == 2 and not seeds & {f.run.seed for f in folders_of(outcome.folder, "trial")}


def test_no_identifier_is_in_any_file_of_a_study_nor_in_rays_logs(inline: Any, home: Path, secret: str) -> None:
    raw, private = Workspace.at(home).raw(studies.inline.datasets[0]), home / "marginlab"
    kinds = {p.suffix for p in home.rglob("*") if p.is_file()}
    assert {".db", ".parquet", ".npy", ".html", ".json", ".jsonl", ".safetensors", ".csv"} <= kinds
    assert holding([secret], home, without=(raw, private)) == []
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    assert list(logs.glob("worker-*")) and holding([secret], logs) == []
    assert len(holding([secret], private)) == 1 and holding([secret], raw)  # it is there that they are


def test_no_page_pixels_or_pseudonyms_of_a_dataset_reach_mlflow(inline: Any, home: Path) -> None:
    """Pages and contact sheets show people where these are no phantoms; the study's own page is in MLflow."""
    packed = Workspace.at(home).packed(studies.inline.datasets[0])
    content = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in packed.iterdir()}
    assert {"report.html", "contact-sheet.html", "images.npy", "manifest.parquet"} <= content.keys()
    sent = [p for p in (home / "mlruns").rglob("*") if p.is_file()]
    assert {"best.safetensors", "test.parquet", "report.html", "MLmodel"} <= {p.name for p in sent}
    assert {p.name for p in sent} & content.keys() == {"report.html"}
    assert not {hashlib.sha256(p.read_bytes()).hexdigest() for p in sent} & set(content.values())
    people = pl.read_parquet(packed / "manifest.parquet")["subject"].unique().to_list()
    needles = [*people, "Contact sheet of oai", "<title>Dataset oai"]
    assert holding(needles, home / "mlruns") == [] and holding(needles, packed)
    assert not any(needle.encode() in text for text in contents(home / "mlflow.db") for needle in needles)


def test_the_answer_is_there(inline: Any) -> None:
    outcome, *_ = inline
    test = Results.open(outcome.folder).test()
    # Two seeds of two arms; each seed's two fold models are one ensemble.
    assert test.filter(pl.col("metric") == "test/map", pl.col("horizon").is_null()).height == 4
    page = outcome.report.read_text()
    assert "phantom" in page and "auto" in page and (outcome.report.parent / "tables" / "headline.csv").exists()
    assert "viewStateShareKey" in outcome.link.url


def test_the_champion_embeds_images_in_a_fresh_process_without_ray(inline: Any, home: Path) -> None:
    code = f"""
import sys, json, numpy as np, mlflow
mlflow.set_tracking_uri("sqlite:///{home / "mlflow.db"}")
model = mlflow.pyfunc.load_model("models:/inline-oai@champion")
out = model.predict(np.zeros((2, 1, 36, 36), dtype=np.uint8))
print(json.dumps([list(np.asarray(out).shape), "ray" in sys.modules]))
"""
    env = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PYTHONPATH": str(ROOT / "platform")}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout.splitlines()[-1]) == [[2, 16], False]


def test_a_trial_replays_to_the_last_bit_outside_ray(inline: Any, home: Path) -> None:
    outcome, *_ = inline
    trial = next(f for f in folders_of(outcome.folder, "trial") if f.result()["state"] == "complete")  # type: ignore[index]
    again = replay(find_run(home, trial.run.id), find_data(home, trial.run.data))
    assert [e.epoch for e in again.epochs] == [0, 1, 2] and again.same
    assert summary(again).startswith("The same numbers, to the last bit, in all 3 epochs")
    assert len(replay(trial, find_data(home, trial.run.data), epochs=1).epochs) == 2


def test_run_again_a_finished_study_does_nothing_again(inline: Any, home: Path) -> None:
    outcome, *_ = inline
    before = {p: p.stat().st_mtime_ns for p in outcome.folder.glob("runs/**/*") if p.is_file()}
    trials = trials_of(outcome.folder)
    run(studies.inline, home)
    assert {p: p.stat().st_mtime_ns for p in outcome.folder.glob("runs/**/*") if p.is_file()} == before
    assert trials_of(outcome.folder).keys() == trials.keys()
    agree_with_mlflow(outcome.folder, home)


def test_what_the_report_waits_for_is_told_too(inline: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a study trains; all that is feigned is the full disk."""
    outcome, *_ = inline
    hindered, troubles, write = [""], [], files.patiently

    def full(do: Callable[[], Any], *args: Any) -> Any:
        def refused() -> Any:
            if hindered[0] and hindered[0] not in troubles:
                raise OSError(errno.ENOSPC, "No space left on device")
            return do()

        return write(refused, *args)

    monkeypatch.setattr(running, "SYNC_PERIOD_S", 0.05)
    monkeypatch.setattr(running, "hindrance", lambda folder: hindered[0])
    monkeypatch.setattr(files, "patiently", full)

    def stepped(step: str) -> None:
        hindered[0] = "It cannot be written." if step == "report" else ""

    nothing, written = lambda *_: None, outcome.report.stat().st_mtime_ns
    run_study(studies.inline, Workspace.at(home), on_step=stepped, progress=nothing, on_trouble=troubles.append)
    assert troubles == ["It cannot be written."] and outcome.report.stat().st_mtime_ns > written


def test_trials_as_worker_groups_are_pruned_and_leave_nothing_behind(nested: Any, home: Path) -> None:
    outcome, _, troubles = nested
    assert troubles == []
    trials = agree_with_optuna(outcome.folder)
    agree_with_mlflow(outcome.folder, home)
    assert trials[("oai/fixed/r0", 0)].state == TrialState.COMPLETE
    pruned = trials[("oai/fixed/r0", 1)]
    assert pruned.state == TrialState.PRUNED and pruned.last_step < 4
    time.sleep(5)
    held = [g for g in placement_group_table().values() if g["state"] in ("CREATED", "PENDING", "RESCHEDULING")]
    assert held == []
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]


def test_incumbents_are_trained_again_without_the_test_split_and_a_default_that_won_only_once(nested: Any) -> None:
    outcome, *_ = nested
    (incumbent,) = folders_of(outcome.folder, "incumbent")
    assert incumbent.labels["trial"] == 0 and len(incumbent.epochs()) == 1 + 4
    assert incumbent.result()["state"] == "complete" and incumbent.embeddings("test") is None  # type: ignore[index]
    assert incumbent.run.seed not in {
        f.run.seed for k in ("trial", "confirmation") for f in folders_of(outcome.folder, k)
    }
    assert folders_of(outcome.folder, "default") == []
    results = Results.open(outcome.folder)
    assert results.missing() == [] and set(spent(results)["basis"]) == {"fresh"} and unit(results) == "CPU-seconds"
    shot = snapshot(outcome.folder)
    assert shot.confirmed == shot.confirmations == 2 and shot.epochs_done == shot.epochs_total


def test_a_network_and_a_reader_of_ones_own_are_recorded_and_replayed(nested: Any, home: Path) -> None:
    outcome, *_ = nested
    trial = next(f for f in folders_of(outcome.folder, "trial") if f.result()["state"] == "complete")  # type: ignore[index]
    network = read_json(trial.path / "run.json")["run"]["training"]["network"]
    assert network["type"].endswith(":Owned") and network["type_source"]
    data = find_data(home, trial.run.data)
    assert data.info["reader"].endswith(":OwnReader") and data.manifest["months"].max() < studies.LAST_MONTHS
    assert replay(trial, data, epochs=1).epochs[0].same  # the untrained network; two workers add up in another order


def test_what_can_never_be_scheduled_is_refused_before_anything_is_trained(inline: Any, home: Path) -> None:
    study = dataclasses.replace(
        studies.inline,
        name="too-large",
        confirmation=dataclasses.replace(studies.inline.confirmation, resources=Resources(workers=64)),
    )
    with pytest.raises(InputError, match=r"Confirmation needs 64 CPUs for one run \(64 workers\), and there are 3"):
        run(study, home)
    assert not list((home / "studies" / "too-large").glob("runs/**/run.json"))


@pytest.fixture(scope="session")
def submit(ray_here: None, home: Path) -> Callable[[str], str]:
    """``ray job submit --working-dir ... -- python jobs/study.py STUDY``; returns the job's log."""
    code = home / "code"
    for part in ("platform", "jobs", "studies"):
        shutil.copytree(ROOT / part, code / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    dashboard = f"http://{ray._private.worker.global_worker.node.webui_url}"

    def submitted(study: str) -> str:
        argv = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", dashboard]
        argv += ["--working-dir", str(code)]
        argv += ["--runtime-env-json", json.dumps({"env_vars": {"XDG_DATA_HOME": str(home)}}), "--"]
        argv += [sys.executable, "jobs/study.py", study, "--workspace", str(home / "job")]
        out = subprocess.run(argv, capture_output=True, text=True, timeout=600, cwd=home)
        assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
        return out.stdout

    return submitted


def test_a_plan_is_made_for_what_a_cluster_has(inline: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = ray.get_runtime_context().gcs_address
    main_of = [f"{Path(studies.__file__)}:inline", "--workspace", str(home), "--address", address]
    with pytest.raises(SystemExit) as end:
        main(["plan", *main_of])
    assert end.value.code == 0 and "of 3 CPUs" in " ".join(capsys.readouterr().out.split())


def test_a_job_runs_the_demos_smallest_form(submit: Callable[[str], str], home: Path) -> None:
    said = submit("studies/demo.py:smallest")
    assert "adatriplet/automargin" in said and "Report:" in said
    results = Results.open(home / "job" / "studies" / "automargin-smallest")
    assert results.test().filter(metric="test/map").height > 0


def test_a_loss_of_ones_own_is_searched_inline_confirmed_by_ray_train_in_a_job_and_replayed(
    submit: Callable[[str], str], home: Path
) -> None:
    assert len((ROOT / "studies" / "own_loss.py").read_text().splitlines()) < 60
    assert "softpairs/halfway" in submit("studies/own_loss.py")
    folder = home / "job" / "studies" / "own-loss"
    runs = Results.open(folder).runs().filter(pl.col("arm") == "softpairs/halfway", pl.col("state") == "complete")
    assert set(runs["kind"]) == {"trial", "confirmation"}
    trial = folder / runs.filter(pl.col("kind") == "trial")["folder"][0]
    kept = {
        read_json(p)["run"]["training"]["loss"]["type_source"]
        for p in folder.glob("runs/**/run.json")
        if "softpairs" in str(p)
    }
    assert len(kept) == 1  # fingerprinted with its source
    (folder / "code").rename(folder / "moved")  # the class comes from nowhere else
    argv = [
        sys.executable,
        "-m",
        "marginlab.cli",
        "replay",
        str(trial),
        "--workspace",
        str(home / "job"),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    out = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=home)
    assert out.returncode == 2 and "SoftPairs" in out.stderr
    (folder / "moved").rename(folder / "code")
    out = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=home)
    assert out.returncode == 0 and "The same numbers, to the last bit, in all" in out.stdout, out.stdout + out.stderr
