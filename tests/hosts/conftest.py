"""One cluster of three hosts for all tests of this folder, and the story of the study that was left alone on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.driving import story, trained
from tests.hosts.driving import Driver, Head
from tests.hosts.raycluster import RayCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.hosts)
            item.add_marker(pytest.mark.timeout(2400))


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A head and two workers of two CPUs, each a network namespace of this machine."""
    if os.getuid() != 0:
        pytest.fail("Hosts are network namespaces, which only root can make: run `make test-cluster` as root.")
    for program in ("ip", "unshare"):
        if shutil.which(program) is None:
            pytest.fail(f"There is no {program}: install iproute2 and util-linux.")
    made = RayCluster.start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def head(cluster: RayCluster) -> Head:
    return Head(cluster)


@pytest.fixture(scope="session")
def undisturbed(head: Head, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The study ``together``, left alone: its workspace, how many epochs it trains, and its story."""
    workspace = tmp_path_factory.mktemp("hosts") / "undisturbed"
    driver = Driver(head, "together", workspace)
    driver.end()
    return {"workspace": workspace, "epochs": trained(driver.folder), "story": story(driver.folder)}
