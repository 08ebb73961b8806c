"""The projection at a server with PostgreSQL and passwords: the same as in a file, and no password where it can be read."""

from __future__ import annotations

import os

import pytest

from marginlab import cli
from marginlab.tracking import Tracker, TrackingAway, champion, connect, links
from tests.servers.conftest import ADMIN, PASSWORD, with_password

pytestmark = pytest.mark.servers
NOTHING = {"runs": 0, "points": 0, "ended": 0}


def call(argv):
    with pytest.raises(SystemExit) as e:
        cli.main(argv)
    assert not e.value.code


def study(place):
    """A trial under way, a pruned one, and two confirmation runs."""
    running, pruned = place.trial(0).train(3), place.trial(1, **{"lr": 2e-4}).train(2)
    pruned.recorder.finish("pruned")
    confirmed = [
        place.confirmation(i, arm).train(4, best=0.7 + i / 100) for i, arm in ((0, "ada/automargin"), (0, "ada/fixed"))
    ]
    for fake in confirmed:
        fake.recorder.finish("complete", metrics={"test/map": 0.6})
    return [running, pruned, *confirmed]


def points(client, tracker, fake):
    """What the server has of a run's epochs, in the shape of ``place.expected``."""
    run = client.get_run(tracker.run_of(fake.task.folder))
    keys = [k for k in run.data.metrics if not k.startswith(("best/", "final/", "test/"))]
    history = [m for k in keys for m in client.get_metric_history(run.info.run_id, k)]
    return sorted((fake.task.folder, m.key, m.step, m.timestamp, m.value) for m in history)


def test_a_study_is_projected_once_and_its_champion_registered(place, packed, guarded, admin, tmp_path):
    fakes = study(place)
    tracker = Tracker(place.workspace, place.study, guarded)
    assert tracker.sync() == {"runs": 4, "points": len(place.expected(*fakes)), "ended": 3}
    assert tracker.sync() == NOTHING and Tracker(place.workspace, place.study, guarded).sync() == NOTHING
    client = connect(place.workspace, guarded).client
    for fake in fakes:
        assert points(client, tracker, fake) == place.expected(fake)
    fakes[0].train(2)
    fakes[0].recorder.finish("complete")
    assert tracker.sync()["ended"] == 1
    assert points(client, tracker, fakes[0]) == place.expected(fakes[0])

    assert champion.register(tracker, {"oai": packed}) == {"oai": "models:/tracked-oai@champion"}
    assert champion.register(Tracker(place.workspace, place.study, guarded), {"oai": packed})
    (version,) = client.search_model_versions("name = 'tracked-oai'")
    assert version.run_id == tracker.run_of(fakes[2].task.folder) or version.run_id == tracker.run_of(
        fakes[3].task.folder
    )
    best = client.get_model_version_by_alias("tracked-oai", "champion")
    assert best.version == version.version and "must not be used for" in best.description
    outputs = client.get_run(version.run_id).outputs.model_outputs
    assert {o.step for o in outputs} == {2} and len(outputs) == 2  # its best weights, and the champion made of them
    kept = client.download_artifacts(version.run_id, "best.safetensors", str(tmp_path))
    assert os.path.getsize(kept) > 0

    (place.study / "report").mkdir()
    (place.study / "report" / "report.html").write_text("<p>answer</p>")
    tracker.finish(place.study / "report", "oai: it matches.")
    assert "it matches" in client.get_run(tracker.parent).data.tags["mlflow.note.content"]
    link = links.comparison(tracker)
    assert link.command is None and link.url.startswith(f"{guarded}/#/experiments/")
    key = link.url.rpartition("=")[2]
    assert f"mlflow.sharedViewState.{key}" in client.get_experiment(tracker.experiment).tags


def test_the_password_may_stand_in_the_uri_and_is_shown_nowhere(place, guarded, capfd):
    place.trial(0).train(1)
    uri = with_password(guarded)
    tracker = Tracker(place.workspace, place.study, uri)
    tracker.sync()
    assert guarded in links.comparison(tracker).url
    where = ["--tracking-uri", uri, "--workspace", str(place.workspace)]
    call(["ui", *where])
    call(["sync", "tracked", *where])
    said = "".join(capfd.readouterr())
    assert f"{guarded}/#/experiments/" in said and "the study:" in said
    kept = [p for p in place.workspace.rglob("*") if p.is_file()]
    for secret in (PASSWORD, uri.partition("://")[2].partition("@")[0]):
        assert secret not in said
        assert not [p for p in kept if secret.encode() in p.read_bytes()]


@pytest.mark.parametrize("name", [ADMIN, "stranger"])
def test_a_wrong_password_ends_in_a_sentence(place, guarded, name):
    with pytest.raises(TrackingAway, match=rf"refuses the user name '{name}'.*MLFLOW_TRACKING_PASSWORD") as e:
        Tracker(place.workspace, place.study, with_password(guarded, name, "wrong-one")).sync()
    assert "wrong-one" not in str(e.value) and guarded in str(e.value)


def test_no_name_ends_in_a_sentence(place, guarded):
    with pytest.raises(TrackingAway, match="asks for a user name and a password: set MLFLOW_TRACKING_USERNAME"):
        Tracker(place.workspace, place.study, guarded).sync()


def test_who_may_only_read_gets_the_links_and_a_sentence_for_a_sync(place, guarded, admin, monkeypatch):
    from mlflow.server.auth.client import AuthServiceClient

    place.trial(0).train(1)
    tracker = Tracker(place.workspace, place.study, guarded)
    tracker.sync()
    links.comparison(tracker)
    AuthServiceClient(guarded).create_user("reader", "reads-and-reads")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "reads-and-reads")
    found = [s for s in links.known(place.workspace, uri=guarded) if tracker.parent in dict(s.links).popitem()[1]]
    assert [s.study for s in found] == ["tracked"]
    place.trial(1).train(1)
    with pytest.raises(TrackingAway, match=r"refuses: .*ermission"):
        Tracker(place.workspace, place.study, guarded).sync()


def test_postgresql_without_a_server_in_between(place, postgres, guarded):
    fakes = study(place)
    tracker = Tracker(place.workspace, place.study, postgres.uri("plain"))
    assert tracker.sync()["points"] == len(place.expected(*fakes))
    assert tracker.sync() == NOTHING
    client = connect(place.workspace, postgres.uri("plain")).client
    assert points(client, tracker, fakes[2]) == place.expected(fakes[2])
    with pytest.raises(TrackingAway, match="password authentication failed") as e:
        connect(place.workspace, postgres.uri("plain", "wrong-one"))
    assert "wrong-one" not in str(e.value)
    with pytest.raises(TrackingAway, match=r"pip install psycopg2-binary.*postgresql\+psycopg2") as e:
        connect(place.workspace, postgres.uri("plain").replace("+psycopg2", ""))
    assert postgres.password not in str(e.value)
