from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from pathlib import Path

import pytest

from marginlab.plan import SearchKey
from marginlab.tracking import Tracker, TrackingAway, champion, connect, links, projector
from marginlab.values import InputError
from tests.tracking.serving import free_port, serving


def view_of(place, url):
    """The saved view behind a link."""
    client = connect(place.workspace).client
    tags = {k: v for e in client.search_experiments() for k, v in e.tags.items()}
    return json.loads(tags[f"mlflow.sharedViewState.{url.partition('viewStateShareKey=')[2]}"])


def test_the_link_opens_a_view_of_this_study_grouped_by_margin_policy(place):
    trial, other = place.trial().train(2), place.trial(0, "cxr14", "ada/fixed").train(2)
    tracker = Tracker(place.workspace, place.study)
    tracker.sync()
    link = links.comparison(tracker, port=5001)
    assert link.command == f"marginlab ui --workspace '{place.workspace}'"
    assert link.url == link.search_url  # there is no confirmation yet
    assert link.url.startswith(
        f"http://127.0.0.1:5001/#/experiments/{tracker.experiment}/runs?workflowType=machine_learning"
    )
    view = view_of(place, link.url)
    groups = [(k["mode"], k["groupByData"]) for k in view["groupBy"]["groupByKeys"]]
    assert groups == [("tag", "margin_policy"), ("tag", "dataset")]  # there are runs on two datasets
    assert view["groupsExpanded"]["tag.margin_policy.AutoMargin,tag.dataset.oai"] is False
    charts = [(c["type"], c["metricKey"]) for c in view["compareRunCharts"]]
    assert charts == [("LINE", "val/map"), ("BAR", "best/val_map"), ("LINE", "margin/epsilon"), ("LINE", "margin/beta")]
    client = connect(place.workspace).client
    found = client.search_runs([tracker.experiment], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"])
    assert {r.info.run_id for r in found} == {place.run(trial).info.run_id, place.run(other).info.run_id}
    place.confirmation(0).train(1)
    assert "confirmation" in links.comparison(tracker, port=5001).url


def test_what_ui_prints_of_a_study(place, packed):
    for n, arm in enumerate(("ada/automargin", "ada/fixed", "ada/fixed")):
        figures = {"margin/epsilon": 0.1 * n, "margin/beta": 0.1}
        place.trial(n, arm=arm, lr=1e-4 * (n + 1)).train(3, best=0.6 + n / 10, **figures).recorder.finish("complete")
    place.trial(3).train(2, best=0.9).recorder.finish("failed", "no")
    place.trial(0, "cxr14", "ada/fixed").train(1)
    confirmed = place.confirmation(0).train(3, best=0.7)
    confirmed.recorder.finish("complete", metrics={"test/map": 0.6})
    place.fake(place.plan.defaults(SearchKey("oai", "ada/fixed", 0))[0]).train(2).recorder.finish("complete")
    tracker = Tracker(place.workspace, place.study)
    champion.register(tracker, {"oai": packed})
    (shown,) = links.known(place.workspace, 5001)
    found = dict(shown.links)
    assert shown.study == "tracked" and list(found) == [
        "AutoMargin against FixedMargin on cxr14, trial runs",
        "AutoMargin against FixedMargin on oai, confirmation runs",
        "all 3 trials on oai, axis by axis",
        "the curves of one run: oai ada/automargin trial 00",
        "the champion on oai",
        "the study: what was asked and answered, and all runs",
    ]
    assert found["the champion on oai"] == "http://127.0.0.1:5001/#/models/tracked-oai?workflowType=machine_learning"
    axes = view_of(place, found["all 3 trials on oai, axis by axis"])
    (chart,) = axes["compareRunCharts"]
    # An own parameter of a policy would lose the runs of the others; on final/beta there is nothing to see; the failed run has
    # no place on the axes.
    assert (chart["selectedParams"], chart["selectedMetrics"]) == (
        ["lr"],
        ["final/epsilon", "best/val_map"],
    )
    client = connect(place.workspace).client
    assert len(client.search_runs([tracker.experiment], axes["searchFilter"])) == 3
    tested = view_of(place, found["AutoMargin against FixedMargin on oai, confirmation runs"])
    assert ("BAR", "test/map") in [(c["type"], c["metricKey"]) for c in tested["compareRunCharts"]]
    assert links.known(place.workspace, 5001) == [shown]
    for tag, text in client.get_experiment(tracker.experiment).tags.items():
        assert len(text) < 5000, tag


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
    port = free_port()
    with serving(*links.server(workspace, port), tmp_path, port) as url:
        yield url


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
