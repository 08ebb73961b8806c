"""What is said of addresses, tokens and jobs, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from marginlab.cluster import jobs
from marginlab.cluster.jobs import Away, Job, Jobs, Record, checked
from marginlab.cluster.token import check_token, make_token
from marginlab.values import InputError

RECORD = Record("x/y", "/w", ("studies/x.py:small", "--workspace", "/w", "--allow-embeddings"), "abc", "python3")


def job(name: str, state: str = "RUNNING", record: Record | None = RECORD) -> Job:
    return Job(name, "x/y", state, "", 0.0, None, None, record, {}, None, None, None)


def test_addresses() -> None:
    assert checked("head:8265") == checked("http://head:8265/") == "http://head:8265"
    assert checked("https://ray.lab") == "https://ray.lab"
    with pytest.raises(InputError, match="is a Ray Client address.*http://HEAD:8265"):
        checked("ray://head:10001")
    for wrong in ("http://", "head:port", "ftp://head", "http://me:hunter2@head:8265"):
        with pytest.raises(InputError, match="give the dashboard's, such as") as e:
            checked(wrong)
        assert "hunter2" not in str(e.value)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(Away, match="Nobody answers at http://127.0.0.1:9"):
        Jobs("127.0.0.1:9")


def test_a_token_that_others_can_read_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hunter2")
    token.chmod(0o640)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with pytest.raises(InputError, match=f"chmod 600 {token}"):
        check_token()
    token.chmod(0o600)
    check_token()


def test_the_token_of_a_ray_of_ones_own_is_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "ray" / "token"
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    make_token()
    assert not token.exists()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    make_token()
    written = token.read_text()
    assert len(written) == 64 and token.stat().st_mode & 0o777 == 0o600 and [*token.parent.iterdir()] == [token]
    make_token()
    assert token.read_text() == written


def test_what_a_job_was_given_comes_back_from_its_metadata() -> None:
    told = RECORD.metadata()
    assert all(isinstance(v, str) for v in told.values()) and Record.of(told) == RECORD
    assert Record.of({"job_submission_id": "x"}) is None


def test_jobs_of_a_study_are_numbered_on() -> None:
    there = [job("x-y-2"), job("x-y-10"), job("x-y-2-3"), job("x-y-z-40")]
    assert next(jobs._numbers(there, "x/y")) == 11 and next(jobs._numbers([], "x/y")) == 1
