"""A study whose workspace is in object storage: no host shares a disk with another, and the head is lost with all that it had."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from marginlab import bucket
from tests import s3
from tests.cluster.driving import story, trained
from tests.hosts.driving import Driver, Head
from tests.hosts.faults import WORKER
from tests.postgres import Postgres

AWAY_S = 10.0


def test_a_study_without_a_shared_disk_loses_a_host_its_storage_and_its_head(
    head: Head, database: Postgres, undisturbed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = head.cluster
    with s3.serving(cluster.outside) as store:
        store.make_bucket("ward")
        for name in ("AWS_ENDPOINT_URL", "AWS_REGION"):  # a driver knows these, and tells all nodes
            monkeypatch.setitem(cluster.env, name, store.environment[name])
        login = Path(cluster.env["HOME"]) / ".aws" / "credentials"  # which every node has of its own
        login.parent.mkdir()
        login.write_text(f"[default]\naws_access_key_id={store.access_key}\naws_secret_access_key={store.secret_key}\n")
        for name, word in {**store.environment, "MARGINLAB_CACHE": str(cluster.cache)}.items():
            monkeypatch.setenv(name, word)
        driver = Driver(head, "together", "s3://ward/lab", database.address("studies"))
        try:
            driver.until(lambda: trained(driver.folder) >= 2)
            host = driver.until(lambda: list(cluster.pids(WORKER).values()))[0]
            host.kill()
            cluster.raise_worker(host)
            driver.until(lambda: trained(driver.folder) >= 5)
            store.stop()
            driver.until(lambda: "s3://ward/lab/studies/together cannot be written" in driver.said())
            time.sleep(AWAY_S)
            store.start()
            before = trained(driver.folder)
            driver.until(lambda: trained(driver.folder) > before)
            driver.kill()
            shutil.rmtree(cluster.cache)
            driver = driver.again()
            driver.end()
        finally:
            driver.kill()
            login.unlink()
        monkeypatch.setenv("MARGINLAB_CACHE", str(tmp_path / "another machine"))
        folder = bucket.folder_of("s3://ward/lab") / "studies" / "together"
        bucket.fetch(folder)
        assert story(folder) == undisturbed["story"]
        assert [p for h in cluster.workers for p in cluster.private(h).rglob("images.npy")]  # they had fetched it
    head.nothing_reserved()
