"""Addresses of workspaces in object storage; what needs a server is in tests/servers/test_bucket.py."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from marginlab import bucket, files
from marginlab.credentials import places, told
from marginlab.values import InputError


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARGINLAB_CACHE", str(tmp_path))
    return tmp_path / "s3"


@pytest.mark.parametrize("given", ["s3://ward/lab/x", "s3://ward/lab/x/", Path("s3://ward/lab/x"), "s3://ward//lab/x"])
def test_an_address_is_a_folder_of_this_machine(given: Path | str, machine: Path) -> None:
    assert bucket.named(given)
    folder = bucket.folder_of(given)
    assert folder == machine / "ward" / "lab" / "x"
    assert bucket.key_of(folder / "studies") == "ward/lab/x/studies"
    assert bucket.shown(folder / "studies") == "s3://ward/lab/x/studies"


def test_a_whole_bucket_is_a_workspace_too(machine: Path) -> None:
    assert bucket.folder_of("s3://ward") == machine / "ward"


@pytest.mark.parametrize(
    "given", ["s3://", "s3:///x", "s3://key:secret@ward/x", "s3://ward/x?endpoint=y", "s3://ward/../x", "s3://Ward/x"]
)
def test_what_is_no_address_is_refused_without_its_login(given: str) -> None:
    with pytest.raises(InputError, match="is no place in object storage: write s3://BUCKET/PREFIX") as e:
        bucket.folder_of(given)
    assert "secret" not in str(e.value)


@pytest.mark.parametrize("given", ["workspace", "/mnt/s3/x", "gs://ward/x", Path("s3")])
def test_other_workspaces_are_folders(given: Path | str) -> None:
    assert not bucket.named(given)


def test_elsewhere_nothing_is_done(tmp_path: Path, machine: Path) -> None:
    folder = machine.with_name("s3x")  # its name begins like that of the place
    for path in (tmp_path / "x", folder, machine):
        assert bucket.key_of(path) is None and bucket.shown(path) == str(path)
        bucket.send(path), bucket.bring(path), bucket.fetch(path, exact=True), bucket.fetch_runs(path, ())
        bucket.remove(path), bucket.move(path, folder), bucket.check(path)
        assert not bucket.there(path) and not bucket.beats(path) and bucket.hindrance(path) == ""
        assert not bucket.fetch_whole(path, "x") and bucket.witnesses(path, "x") == {}


def test_an_address_of_a_server_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio.lab:9000")
    with pytest.raises(InputError, match="write the server's whole address, such as http://minio.lab:9000"):
        bucket.filesystem()


def test_secrets_of_such_a_workspace_are_in_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert places("s3://ward/x") == [Path("/home/me/.config/marginlab/secrets.env")]
    assert told("s3://ward/x") == "~/.config/marginlab/secrets.env"
    assert (
        places("/mnt/x") == [Path("/mnt/x/secrets.env"), *places("s3://ward/x")]
        and told("/mnt/x") == "/mnt/x/secrets.env"
    )


def test_what_says_that_storage_is_away_reaches_other_processes() -> None:
    away = bucket.Away("s3://ward does not answer")
    away.add_note(files.WAITED)
    there = pickle.loads(pickle.dumps(away))
    assert str(there) == str(away) and files.passes(there) and there.__notes__ == [files.WAITED]
