from __future__ import annotations

import shutil

import polars as pl
import pytest
import requests

from marginlab.files import write_json
from marginlab.tracking import Tracker, TrackingAway, connect, projector
from marginlab.tracking.store import Store
from marginlab.values import InputError


def tracker_of(place, **kwargs):
    return Tracker(place.workspace, place.study, **kwargs)


def test_every_point_is_there_once_after_three_syncs(place):
    a, b = place.trial(0).train(3), place.trial(1).train(2)
    tracker = tracker_of(place)
    assert tracker.sync() == {"runs": 2, "points": len(place.expected(a, b)), "ended": 0}
    assert tracker.sync() == {"runs": 0, "points": 0, "ended": 0}
    assert tracker_of(place).sync() == {"runs": 0, "points": 0, "ended": 0}
    assert place.points() == place.expected(a, b)


def test_a_run_is_followed_epoch_by_epoch_by_trackers_that_take_turns(place):
    trial = place.trial()
    first, second = tracker_of(place), tracker_of(place)
    for tracker in (first, second, second, first):
        trial.train(1)
        tracker.sync()
    assert place.points() == place.expected(trial)
    assert place.run(trial).info.status == "RUNNING"
    assert len(place.sql("SELECT 1 FROM runs")) == 2  # the study's and the trial's


def test_runs_of_a_process_that_was_killed_are_reconciled(place):
    done, open_ = place.trial(0).train(2), place.trial(1).train(1)
    done.recorder.finish("complete")
    tracker_of(place).sync()
    assert place.run(open_).info.status == "RUNNING"
    tracker_of(place).sync(at_work=False)
    assert study_run(place).info.status == "KILLED"
    assert (place.run(open_).info.status, place.run(open_).data.tags["state"]) == ("KILLED", "interrupted")
    assert place.run(done).info.status == "FINISHED"
    open_.train(1)
    tracker_of(place).sync()  # somebody goes on with it
    assert study_run(place).info.status == place.run(open_).info.status == "RUNNING"
    open_.recorder.finish("complete")
    write_json(place.study / "status.json", {"step": "done"})
    tracker_of(place).sync(at_work=False)
    assert study_run(place).info.status == place.run(open_).info.status == "FINISHED"
    assert place.of_epochs() == place.expected(done, open_)


def study_run(place):
    client = connect(place.workspace).client
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.kind = 'study'")
    return run


def test_many_rows_go_in_batches(place, monkeypatch):
    monkeypatch.setattr(projector, "_BATCH", 20)
    trial = place.trial().train(12)
    tracker_of(place).sync()
    assert place.points() == place.expected(trial)


def test_a_sync_that_is_cut_off_anywhere_is_carried_on(place, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setattr(projector, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(projector, "_BATCH", 10)
    trial = place.confirmation(0).train(4)
    trial.recorder.finish("complete", metrics={"test/map": 0.7})
    fuse = {"left": 0}

    def guard(call):
        def guarded(*args, **kwargs):
            if not fuse["left"]:
                raise requests.ConnectionError("gone")
            fuse["left"] -= 1
            return call(*args, **kwargs)

        return guarded

    calls = ("create_run", "log_inputs", "log_batch", "set_terminated", "set_tag")
    for name in (*calls, "create_logged_model", "log_outputs", "finalize_logged_model"):
        monkeypatch.setattr(MlflowClient, name, guard(getattr(MlflowClient, name)))
    monkeypatch.setattr(Store, "put", guard(Store.put))
    tracker = tracker_of(place)
    cuts = 0
    for allowed in range(1, 30):
        fuse["left"] = allowed
        try:
            tracker.sync()
            break
        except TrackingAway as e:
            assert "marginlab sync" in str(e)
            cuts += 1
    assert cuts >= 5
    run = place.run(trial)
    final = {p[1]: p[4] for p in place.points() if p not in place.of_epochs()}
    assert final == {
        "best/val_map": trial.recorder.best["val/map"],
        "test/map": 0.7,
        "final/epsilon": 0.2,
        "final/beta": 0.1,
    }
    assert place.of_epochs() == place.expected(trial)
    (model,) = models_of(place, run)
    assert model.metrics and len(model.metrics) == 3
    assert run.info.status == "FINISHED" and len(run.inputs.dataset_inputs) == 1
    assert run.data.params["margin.k_delta"] == "2.0"


@pytest.mark.parametrize("synced", [0, 2, 3])
def test_points_arrive_in_the_order_of_their_epochs(place, synced):
    """Also that of the best epoch, which its model gets too."""
    run = place.trial().train(synced)
    tracker_of(place).sync()
    run.train(4 - synced, best=0.9)
    run.recorder.finish("complete")
    tracker_of(place).sync()
    steps = place.sql("SELECT step FROM metrics WHERE key = 'val/map' ORDER BY rowid")
    assert [s for (s,) in steps] == [0, 1, 2, 3] and 0 < run.recorder.best["epoch"] < 3 + (synced == 3)


def test_a_run_that_has_ended_takes_few_calls(place, monkeypatch):
    """Each call costs milliseconds in the process that hands out trials, and a search has thousands of short ones."""
    from mlflow import MlflowClient

    tracker = tracker_of(place)
    tracker.sync()
    pruned, complete = place.trial(0).train(3), place.trial(1).train(3)
    pruned.recorder.finish("pruned")
    called: list[str] = []

    def counted(name, call):
        def counting(*args, **kwargs):
            called.append(name)
            return call(*args, **kwargs)

        return counting

    for name, call in vars(MlflowClient).items():
        if callable(call) and not name.startswith("_"):
            monkeypatch.setattr(MlflowClient, name, counted(name, call))
    tracker.sync()
    each = ["create_run", "log_inputs", "log_batch"]
    assert called == [*each, "set_terminated", "set_tag", *each]
    called.clear()
    complete.recorder.finish("complete")
    tracker.sync()
    model = ["create_logged_model", "log_outputs", "finalize_logged_model"]
    assert called == [*model, "log_batch", "set_terminated", "set_tag"]
    assert place.of_epochs() == place.expected(pruned, complete)
    assert len(models_of(place, place.run(complete))) == 1


def test_what_a_complete_confirmation_run_shows(place):
    from mlflow import MlflowClient

    fake = place.confirmation(1)
    tracker = tracker_of(place)
    fake.train(4, best=0.9, **{"val/broken": float("nan")})
    result = fake.recorder.finish("complete", metrics={"test/map": 0.75})
    tracker.sync()
    run = place.run(fake)
    tags = run.data.tags
    assert run.info.run_name == "oai ada/automargin confirmation seed 1 fold 0"
    assert run.info.status == "FINISHED" and run.info.end_time == round(result["time"] * 1000)
    assert tags["mlflow.parentRunId"] == tracker.parent
    shown = {
        k: tags[k]
        for k in ("kind", "search", "study", "dataset", "arm", "margin_policy", "replicate", "fold", "phantom", "state")
    }
    assert shown == {
        "kind": "confirmation",
        "search": "oai/ada/automargin/r0",
        "study": "tracked",
        "dataset": "oai",
        "arm": "ada/automargin",
        "margin_policy": "AutoMargin",
        "replicate": "0",
        "fold": "0",
        "phantom": "true",
        "state": "complete",
    }
    assert tags["marginlab.run_id"] == fake.task.run.id and tags["seed"] == str(fake.task.run.seed)
    assert run.data.params["loss.type"] == "AdaTriplet" and run.data.params["network.dim"] == "8"
    assert run.data.params["lr"] == "0.0001" and "type" not in run.data.params
    assert "val/broken" not in run.data.metrics
    (history,) = MlflowClient(f"sqlite:///{place.workspace}/mlflow.db").get_metric_history(run.info.run_id, "test/map")
    assert (history.value, history.step) == (0.75, 2)  # the best epoch
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("oai", fake.task.run.data)
    assert place.artifacts(fake) == [
        "best.safetensors",
        *(f"embeddings/{part}.{form}" for part in ("test", "validation") for form in ("parquet", "svg")),
    ]
    (model,) = models_of(place, run)
    assert model.name == "oai ada-automargin confirmation seed 1 fold 0" and model.tags["weights"].endswith(
        "best.safetensors"
    )
    assert {m.key: (m.value, m.step) for m in model.metrics} == {
        "val/map": (0.9, 2),
        "best/val_map": (0.9, 2),
        "test/map": (0.75, 2),
    }
    assert [(o.model_id, o.step) for o in run.outputs.model_outputs] == [(model.model_id, 2)]
    for words in (
        "seed that no search used",
        "Measured on phantoms",
        "**0.9000** at epoch 2 of 3",
        "epsilon 0.2, beta 0.1",
    ):
        assert words in tags["mlflow.note.content"]
    root = place.workspace / "mlruns" / "tracked" / run.info.run_id / "artifacts"
    frame = pl.read_parquet(root / "embeddings" / "validation.parquet")
    assert frame.columns == ["row", "label", "months", "role", "embedding"]


def models_of(place, run):
    client = connect(place.workspace).client
    return client.search_logged_models([run.info.experiment_id], f"tags.`marginlab.best_of` = '{run.info.run_id}'")


def test_the_study_is_the_parent_and_ends_with_its_report(place, tmp_path):
    from marginlab.tracking import connect

    place.trial(7).train(1)
    (tmp_path / "report" / "tables").mkdir(parents=True)
    (tmp_path / "report" / "index.html").write_text("<p>answer</p>")
    (tmp_path / "report" / "tables" / "primary.csv").write_text("a,b")
    tracker = tracker_of(place)
    tracker.sync()
    client = connect(place.workspace).client
    parent = client.get_run(tracker.parent)
    assert (parent.info.run_name, parent.info.status) == ("tracked", "RUNNING")
    assert parent.data.tags["kind"] == "study"
    note = parent.data.tags["mlflow.note.content"]
    assert (
        "**Question.** Does it?" in note
        and "| `ada/fixed` | AdaTriplet | FixedMargin |" in note
        and "Answer" not in note
    )
    assert {d.dataset.name: d.dataset.digest for d in parent.inputs.dataset_inputs} == place.plan.data
    tracker.finish(tmp_path / "report", "oai: it does.")
    assert client.get_run(tracker.parent).info.status == "FINISHED"
    assert "**Answer.** oai: it does." in client.get_run(tracker.parent).data.tags["mlflow.note.content"]
    assert [a.path for a in client.list_artifacts(tracker.parent, "report")] == ["report/index.html", "report/tables"]
    place.trial(8).train(1)  # the study is extended
    tracker_of(place).sync()
    assert client.get_run(tracker.parent).info.status == "RUNNING"


def test_states_of_pruned_and_failed_runs_and_a_second_try(place):
    pruned, failed = place.trial(0).train(2), place.trial(1).train(1)
    pruned.recorder.finish("pruned")
    failed.recorder.finish("failed", "The loss was nan in epoch 1.")
    tracker = tracker_of(place)
    assert tracker.sync()["ended"] == 2
    assert (place.run(pruned).info.status, place.run(pruned).data.tags["state"]) == ("FINISHED", "pruned")
    assert place.artifacts(pruned) == ["best.safetensors", "embeddings/validation.parquet", "embeddings/validation.svg"]
    assert (place.run(failed).info.status, place.run(failed).data.tags["state"]) == ("FAILED", "failed")
    assert place.run(failed).data.tags["reason"] == "The loss was nan in epoch 1."
    (failed.path / "result.json").unlink()
    failed.train(1)
    tracker.sync()
    assert (place.run(failed).info.status, place.run(failed).data.tags["state"]) == ("RUNNING", "running")
    failed.recorder.finish("complete")
    tracker_of(place).sync()
    assert (place.run(failed).info.status, place.run(failed).data.tags["state"]) == ("FINISHED", "complete")
    assert place.of_epochs() == place.expected(pruned, failed)


def test_a_run_that_was_begun_anew_replaces_its_projection(place):
    place.trial().train(3)
    tracker = tracker_of(place)
    tracker.sync()
    shutil.rmtree(place.trial().path)
    again = place.trial().train(2)
    tracker.sync()
    assert place.points() == place.expected(again)
    again.recorder.finish("complete")
    tracker.sync()
    before = place.run(again)
    shutil.rmtree(again.path)
    place.trial().train(2)
    tracker.sync()
    assert models_of(place, before) == []


def test_a_run_that_a_server_made_twice_is_there_once(place):
    """Its answer was lost, and it was asked again: the other one was never written to."""
    trial = place.trial().train(2)
    tracker_of(place).sync()
    made = place.run(trial)
    client = connect(place.workspace).client
    tags = {k: v for k, v in made.data.tags.items() if k != "marginlab.logged"}
    for start in (made.info.start_time - 1, made.info.start_time + 1):
        client.create_run(made.info.experiment_id, start_time=start, tags=tags)
    trial.train(1)
    tracker_of(place).sync()
    assert place.run(trial).info.run_id == made.info.run_id
    assert place.points() == place.expected(trial)


def test_what_was_deleted_in_mlflow_comes_back(place, monkeypatch):
    from marginlab.tracking import connect

    monkeypatch.setattr(projector, "_PATIENCE_S", 0.0)
    trial = place.trial().train(2)
    tracker = tracker_of(place)
    tracker.sync()
    client = connect(place.workspace).client
    client.delete_run(place.run(trial).info.run_id)
    client.delete_run(tracker.parent)
    tracker_of(place).sync()
    assert place.points() == place.expected(trial)
    assert client.get_run(place.run(trial).data.tags["mlflow.parentRunId"]).info.lifecycle_stage == "active"


def test_embeddings_of_people_go_to_another_machine_only_when_allowed(place, monkeypatch):
    monkeypatch.setattr(Store, "stays_home", property(lambda self: False))
    person, phantom = place.trial(0, dataset="cxr14").train(2), place.trial(0).train(2)
    for fake in (person, phantom):
        fake.recorder.finish("complete")
    tracker_of(place).sync()
    assert place.artifacts(phantom) == [
        "best.safetensors",
        "embeddings/validation.parquet",
        "embeddings/validation.svg",
    ]
    assert place.artifacts(person) == ["best.safetensors"]
    tracker_of(place, allow_embeddings=True).sync()
    assert place.artifacts(person) == ["best.safetensors", "embeddings/validation.parquet", "embeddings/validation.svg"]
    assert tracker_of(place).sync()["ended"] == 0


def test_runs_that_ended_before_this_process_claim_no_commit(place, monkeypatch):
    monkeypatch.setattr(projector, "_git_commit", lambda: "c0ffee")
    before = place.trial(0).train(1)
    before.recorder.finish("complete")
    tracker = tracker_of(place)
    now = place.trial(1).train(1)
    now.recorder.finish("complete")
    tracker.sync()
    assert "git.sha" not in place.run(before).data.tags
    assert place.run(now).data.tags["git.sha"] == place.run(now).data.tags["mlflow.source.git.commit"] == "c0ffee"


def test_a_moved_workspace_keeps_its_artifacts(place):
    trial = place.trial().train(1)
    trial.recorder.finish("complete")
    tracker_of(place).sync()
    moved = place.workspace.with_name("moved")
    place.workspace.rename(moved)
    place.workspace = moved
    other = place.trial(1).train(1)
    other.recorder.finish("complete")
    assert tracker_of(place).sync()["runs"] == 1
    for fake in (trial, other):
        assert str(moved) in place.run(fake).info.artifact_uri
        assert "best.safetensors" in place.artifacts(fake)


def test_a_server_that_is_away_is_not_asked_at_every_call(place):
    place.trial().train(1)
    tracker = tracker_of(place, uri="http://127.0.0.1:1")
    with pytest.raises(TrackingAway, match=r"http://127\.0\.0\.1:1 .*start the server") as first:
        tracker.sync()
    with pytest.raises(TrackingAway) as second:
        tracker.sync()
    assert second.value is first.value


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no study\.json"):
        Tracker(tmp_path, tmp_path).sync()
