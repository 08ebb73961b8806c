"""A workspace in object storage, on a real server: what one machine writes others have, whatever happens in between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marginlab import bucket, cli_jobs, faults, files, hindrance, stopping
from marginlab.bucket.objects import files as listed
from marginlab.cluster.jobs import Record
from marginlab.files import append_line, write_json, write_text
from marginlab.lock import locked
from marginlab.package import collect, keep, kept_at
from marginlab.values import InputError
from marginlab.workspace import Workspace
from tests.cluster import studies
from tests.cluster.driving import run_here
from tests.s3 import S3, serving

pytestmark = pytest.mark.servers
Machine = Callable[[str], Path]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with serving() as made:
        made.make_bucket("ward")
        yield made


@pytest.fixture
def on(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes this process one of the machine of a name; returns the workspace's folder there."""
    for name, word in s3.environment.items():
        monkeypatch.setenv(name, word)

    def become(machine: str) -> Path:
        monkeypatch.setenv("MARGINLAB_CACHE", str(tmp_path / machine))
        return bucket.folder_of(f"s3://ward/{tmp_path.name}")

    return become


def below(folder: Path) -> dict[str, str]:
    """The files that a machine has, less hidden ones."""
    found = [p for p in folder.rglob("*") if p.is_file()]
    return {name: p.read_text() for p in found if not bucket.objects.hidden(name := p.relative_to(folder).as_posix())}


def test_what_is_written_on_one_machine_others_fetch(on: Machine) -> None:
    here = on("a")
    write_json(here / "studies" / "s" / "study.json", {"a": 1})
    append_line(here / "studies" / "s" / "rows.jsonl", {"row": 1})
    append_line(here / "studies" / "s" / "rows.jsonl", {"row": 2})
    write_text(here / "studies" / "s" / ".hidden", "stays")
    (here / "studies" / "s" / "code").mkdir()
    write_text(here / "studies" / "s" / "code" / "own.py", "x = 1\n")
    written = below(here)
    there = on("b")
    assert below(there) == {}
    bucket.fetch(there / "studies")
    assert below(there) == written and not (there / "studies" / "s" / ".hidden").exists()
    assert bucket.shown(there / "studies").startswith("s3://ward/") and bucket.key_of(Path("/tmp/else")) is None


def test_a_file_of_the_same_size_written_within_the_same_second_is_seen(on: Machine) -> None:
    """S3's times have whole seconds."""
    place = "studies/s/value"
    for number in range(5):
        write_text(on("a") / place, f"{number}")
        there = on("b")
        bucket.bring(there / place)
        assert (there / place).read_text() == f"{number}"


def test_two_machines_that_write_and_fetch_in_any_order_end_alike(on: Machine) -> None:
    """Each writes files of its own; after a last fetch both have all, as it was written last."""
    draw, truth = random.Random(3), {}
    for _ in range(60):
        name = draw.choice("ab")
        folder = on(name)
        if draw.random() < 0.3:
            bucket.fetch(folder)
            continue
        place = f"{name}/{draw.randrange(4)}"
        truth[place] = f"{draw.randrange(10)}" * draw.choice([1, 1, 5])
        write_text(folder / place, truth[place])
    for name in "ab":
        bucket.fetch(on(name))
        assert below(on(name)) == truth


def run_folder(folder: Path, ended: bool = True) -> dict[str, str]:
    for name in ("run.json", "epochs.jsonl", "last.safetensors", "best.safetensors", "embeddings/test.parquet"):
        write_text(folder / name, f"{name} of {folder.name}")
    if ended:
        write_text(folder / "result.json", "{}")
    return below(folder)


def test_of_runs_at_work_the_rows_are_fetched_and_of_ended_ones_all_but_what_training_needs(on: Machine) -> None:
    runs = on("a") / "studies" / "s" / "runs"
    ended, open_ = run_folder(runs / "oai" / "arm" / "one"), run_folder(runs / "oai" / "arm" / "two", ended=False)
    there = on("b") / "studies" / "s" / "runs"
    bucket.fetch_runs(there, ("last.safetensors",))
    assert below(there / "oai" / "arm" / "one") == {k: v for k, v in ended.items() if k != "last.safetensors"}
    assert below(there / "oai" / "arm" / "two") == {k: open_[k] for k in ("run.json", "epochs.jsonl")}
    on("a")
    write_text(runs / "oai" / "arm" / "two" / "result.json", "{}")
    on("b")
    bucket.fetch_runs(there, ("last.safetensors",))
    assert set(below(there / "oai" / "arm" / "two")) == {*open_, "result.json"} - {"last.safetensors"}


def test_a_run_that_somebody_on_this_machine_is_at_work_in_is_left_alone(on: Machine) -> None:
    runs = on("a") / "runs"
    run_folder(runs / "one")
    there = on("b") / "runs"
    run = there / "one"
    with bucket.alone(run):
        bucket.fetch(run, exact=True)
        (run / "epochs.jsonl").write_text("newer, and not sent yet")
        bucket.fetch_runs(there, ())
        assert (run / "epochs.jsonl").read_text() == "newer, and not sent yet"
    bucket.fetch_runs(there, ())
    assert (run / "epochs.jsonl").read_text() == "epochs.jsonl of one"


def test_who_stands_still_with_a_lock_is_not_waited_for_for_ever(on: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket.folders, "_WAIT_S", 0.5)
    run = on("a") / "runs" / "one"
    with locked(run / ".here.lock"), bucket.alone(run):
        pass


def test_what_was_not_sent_is_no_part_of_a_run(on: Machine) -> None:
    """A machine that was at work in an older run of this name, or was killed before it sent what it wrote."""
    run = on("a") / "runs" / "one"
    run_folder(run)
    there = on("b") / "runs" / "one"
    there.mkdir(parents=True)
    (there / "partway.safetensors").write_text("of an older run")
    (there / "epochs.jsonl").write_text("written, and not sent")
    bucket.fetch(there, exact=True)
    assert below(there) == below(run)


def test_a_whole_folder_is_fetched_whole_and_replaced_whole(on: Machine) -> None:
    seen: list[tuple[int, int]] = []

    def dataset(folder: Path, version: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("images.npy", "manifest.parquet", "dataset.json"):
            (folder / name).write_text(f"{name} {version}")

    own = on("a") / "data" / "oai-1"
    assert bucket.fetch_whole(own, "dataset.json") is False
    dataset(own, "first")
    bucket.send_whole(own, "dataset.json", lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    there = on("b") / "data" / "oai-1"
    assert bucket.fetch_whole(there, "dataset.json") and below(there) == below(own)
    before = (there / "images.npy").stat().st_ino
    assert bucket.fetch_whole(there, "dataset.json") and (there / "images.npy").stat().st_ino == before  # nothing to do
    on("a")
    dataset(own, "second, longer")
    bucket.send_whole(own, "dataset.json")
    assert {k: v.decode() for k, v in bucket.witnesses(own.parent, "dataset.json").items()} == {
        "oai-1": "dataset.json second, longer"
    }
    on("b")
    (there / "left over").write_text("of the first")
    assert bucket.fetch_whole(there, "dataset.json") and below(there) == below(own)


def test_a_dataset_that_is_being_replaced_is_not_there(on: Machine, s3: S3) -> None:
    """Killed after its first file: nobody takes the half for the whole."""
    own = on("a") / "data" / "oai-1"
    own.mkdir(parents=True)
    for name in ("images.npy", "dataset.json"):
        (own / name).write_text("first")
    bucket.send_whole(own, "dataset.json")
    bucket.remove(own / "dataset.json")
    write_text(own / "images.npy", "second")
    there = on("b") / "data" / "oai-1"
    assert bucket.fetch_whole(there, "dataset.json") is False and not there.exists()


def test_a_storage_that_is_away_is_waited_for_and_then_given_up(
    on: Machine, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = on("a") / "studies" / "s"
    write_text(folder / "value", "before")
    s3.stop(signal.SIGKILL)
    try:
        said = hindrance.hindrance(folder)
        assert said.startswith(f"{bucket.shown(folder)} cannot be written (s3://") and "network connection" in said
        assert stopping.asked(folder) is False
        faults.note(folder, "Nobody waits for this one.")
        monkeypatch.setattr(files, "PATIENCE_S", 1.0)
        with pytest.raises(bucket.Away, match="network connection"):
            write_text(folder / "value", "given up")
        monkeypatch.setattr(files, "PATIENCE_S", 120.0)
        timer = threading.Timer(1.0, s3.start)
        timer.start()
        write_text(folder / "value", "after")
        timer.join()
    finally:
        if not s3.processes:
            s3.start()
    there = on("b") / "studies" / "s"
    bucket.fetch(there)
    assert (there / "value").read_text() == "after" and hindrance.hindrance(there) == ""


WRITER = """
import sys
from pathlib import Path
from marginlab import bucket
from marginlab.files import write_text
folder = bucket.folder_of(sys.argv[1])
print("ready", flush=True)
for n in range(10**6):
    write_text(folder / "value", f"{n} " * 200_000)
"""


def test_killed_at_any_moment_a_reader_finds_a_whole_file(on: Machine, tmp_path: Path) -> None:
    draw = random.Random(7)
    for number in range(3):
        here = on(f"writer-{number}")
        argv = [sys.executable, "-c", WRITER, bucket.shown(here)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ})
        assert process.stdout is not None and process.stdout.readline()
        while not bucket.there(here / "value"):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 1.5))
        process.kill()
        process.wait()
        there = on(f"reader-{number}")
        bucket.bring(there / "value")
        words = (there / "value").read_text().split()
        assert len(words) == 200_000 and len(set(words)) == 1


def test_a_wish_to_stop_a_fault_and_a_sign_of_life_reach_other_machines(
    on: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = on("a") / "studies" / "s"
    folder.mkdir(parents=True)
    lock = folder.with_name("s.lock")
    stopping.ask(folder)
    faults.note(folder, "A rank was slow.")
    with locked(lock), bucket.beating(lock):
        there = on("b") / "studies" / "s"
        until = time.monotonic() + 30
        while not bucket.beats(there.with_name("s.lock")):
            assert time.monotonic() < until
        assert Workspace(there.parents[1]).at_work("s")
        monkeypatch.setattr(bucket.life, "_DEAD_S", -60.0)
        assert not bucket.beats(there.with_name("s.lock"))  # it was killed a while ago
        monkeypatch.setattr(bucket.life, "_DEAD_S", 60.0)
    assert stopping.asked(there)
    bucket.fetch(there)
    assert [f.what for f in faults.read(there)] == ["A rank was slow."]
    stopping.clear(there)
    on("a")
    assert (folder / stopping.WISH).exists()  # left on the machine that asked
    assert not stopping.asked(folder)


def test_a_study_that_is_set_aside_is_so_for_all(on: Machine) -> None:
    space = Workspace(on("a"))
    write_json(space.study("s") / "study.json", {})
    run_folder(space.study("s") / "runs" / "one")
    whole = below(space.study("s"))
    aside = space.set_aside("s")
    assert aside is not None
    other = Workspace(on("b"))
    assert other.studies() == [aside.name]
    other.fetch(aside.name)
    bucket.fetch(other.study(aside.name))
    assert below(other.study(aside.name)) == whole
    bucket.remove(other.study(aside.name))
    key = bucket.key_of(other.root)
    assert key is not None and not [n for n in listed(bucket.filesystem(), key) if aside.name in n]


def test_the_code_of_a_job_is_kept_there_and_found_from_elsewhere(on: Machine, tmp_path: Path) -> None:
    """What ``marginlab resume`` sends again from any machine."""
    here = on("head")
    sent = tmp_path / "sent"
    digest = collect(Path(__file__).parents[2] / "studies" / "demo.py").write(sent, None)
    kept = keep(sent, here)
    assert kept == kept_at(here, digest)
    record = Record("demo", bucket.shown(here), (), digest)
    on("laptop")
    found = cli_jobs._kept(record)
    assert found is not None and below(found) == below(sent) and found != kept


def test_searches_in_a_file_are_refused_before_anything_is_done(on: Machine) -> None:
    """They would be lost with the head."""
    here = on("a")
    with pytest.raises(
        InputError, match=r"s3://ward/.* the searches are in PostgreSQL.*--study-database postgresql://"
    ):
        run_here(studies.killed, bucket.shown(here))
    assert set(below(here)) == {"studies/killed.lock"} and Workspace(here).studies() == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "access denied"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "network connection"),
    ],
)
def test_a_storage_that_refuses_is_said_at_once(
    on: Machine, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], said: str
) -> None:
    on("a")
    for name, word in settings.items():
        monkeypatch.setenv(name, word)
    with pytest.raises(InputError, match=rf"s3://ward/x: {said}\. Is there such a bucket"):
        Workspace.at("s3://ward/x")


def test_an_unknown_bucket_is_said_at_once(on: Machine) -> None:
    on("a")
    with pytest.raises(InputError, match="s3://absent/x: no such bucket"):
        Workspace.at("s3://absent/x")
