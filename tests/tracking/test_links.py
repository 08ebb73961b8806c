from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from marginlab.tracking import Tracker, TrackingAway, champion, connect, links, projector
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


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    """The server that ``marginlab ui`` starts, over another workspace, on a free port."""
    tmp_path = tmp_path_factory.mktemp("server")
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


class Wire:
    """A port that passes everything on to another one, and can be cut."""

    def __init__(self, target):
        self.target, self.port, self.listener, self.open = target, 0, None, set()

    def connect(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for s in list(self.open):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                near = listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.target))
                self.open |= {near, far}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def test_what_happens_while_the_server_is_away_arrives_later_once_and_in_order(place, server, monkeypatch):
    monkeypatch.setattr(projector, "_PATIENCE_S", 0.0)
    wire = Wire(int(server.rpartition(":")[2]))
    wire.connect()
    tracker = Tracker(place.workspace, place.study, f"http://127.0.0.1:{wire.port}")
    first = place.trial(0).train(2)
    tracker.sync()
    wire.cut()
    for _ in range(3):  # training goes on
        first.train(1)
        with pytest.raises(TrackingAway, match="folders hold everything|start the server"):
            tracker.sync()
    second = place.trial(1).train(2)
    second.recorder.finish("pruned")
    wire.connect()
    tracker.sync()
    tracker.sync()
    client = connect(place.workspace, server).client
    for trial in (first, second):
        run = tracker.run_of(trial.task.folder)
        for key in ("val/map", "train/loss"):
            rows = [r for r in trial.rows() if key in r]
            history = client.get_metric_history(run, key)  # in the order in which they arrived
            assert [(m.step, m.timestamp, m.value) for m in history] == [
                (r["epoch"], round(r["time"] * 1000), r[key]) for r in rows
            ]
    assert client.get_run(tracker.run_of(second.task.folder)).info.status == "FINISHED"
    wire.cut()
