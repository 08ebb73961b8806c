from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from marginlab.tracking import Tracker, champion, connect, links
from marginlab.values import InputError


def test_the_link_opens_a_view_of_this_study_grouped_by_margin_policy(place):
    trial = place.trial().train(2)
    tracker = Tracker(place.workspace, place.study)
    tracker.sync()
    link = links.comparison(tracker, port=5001)
    assert link.command == f"marginlab ui --workspace '{place.workspace}'"
    assert link.url == link.search_url  # there is no confirmation yet
    assert link.url.startswith(
        f"http://127.0.0.1:5001/#/experiments/{tracker.experiment}/runs?workflowType=machine_learning"
    )
    key = link.url.partition("viewStateShareKey=")[2]
    client = connect(place.workspace).client
    view = json.loads(client.get_experiment(tracker.experiment).tags[f"mlflow.sharedViewState.{key}"])
    groups = [(k["mode"], k["groupByData"]) for k in view["groupBy"]["groupByKeys"]]
    assert groups == [("tag", "margin_policy"), ("tag", "dataset")]  # the study has two datasets
    charts = [(c["type"], c["metricKey"]) for c in view["compareRunCharts"]]
    assert charts == [("LINE", "val/map"), ("LINE", "margin/epsilon"), ("LINE", "margin/beta"), ("BAR", "best/val_map")]
    (found,) = client.search_runs([tracker.experiment], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"])
    assert found.info.run_id == place.run(trial).info.run_id
    place.confirmation(0).train(1)
    assert "confirmation" in links.comparison(tracker, port=5001).url
    assert [name for name, _ in links.known(place.workspace)] == ["tracked, confirmation runs", "tracked, trial runs"]
    assert links.known(place.workspace, 5001)[1][1] == link.search_url


def test_a_workspace_without_a_database_has_nothing_to_show(tmp_path):
    assert links.known(tmp_path) == []
    with pytest.raises(InputError, match=r"no mlflow\.db yet"):
        links.server(tmp_path)


@pytest.fixture
def server(database, tmp_path):
    """The server that ``marginlab ui`` starts, over another workspace, on a free port."""
    workspace = tmp_path / "another one"
    workspace.mkdir()
    shutil.copyfile(database, workspace / "mlflow.db")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    argv, env = links.server(workspace, port)
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        for _ in range(900):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def test_a_study_goes_to_a_server(place, packed, server, tmp_path):
    trial, done = place.trial().train(2), place.confirmation(0).train(3, best=0.8)
    done.recorder.finish("complete", metrics={"test/map": 0.7})
    tracker = Tracker(place.workspace, place.study, server)
    assert tracker.sync()["runs"] == 2
    assert tracker.sync() == {"runs": 0, "points": 0, "ended": 0}
    link = links.comparison(tracker)
    assert link.command is None and link.url.startswith(f"{server}/#/experiments/")
    assert champion.register(tracker, {"oai": packed}) == {"oai": "models:/tracked-oai@champion"}
    client = connect(place.workspace, server).client
    mine = client.search_runs([tracker.experiment], f"tags.`mlflow.parentRunId` = '{tracker.parent}'")
    assert {r.data.tags["marginlab.run_folder"] for r in mine} == {trial.task.folder, done.task.folder}
    history = client.get_metric_history(tracker.run_of(done.task.folder), "val/map")
    assert [m.step for m in history] == [0, 1, 2]
    kept = client.download_artifacts(tracker.run_of(done.task.folder), "best.safetensors", str(tmp_path))
    assert Path(kept).read_bytes() == (done.path / "best.safetensors").read_bytes()
