"""One cluster of three hosts for all tests of this folder, its servers, and the story of the study that was left alone on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marginlab.tracking import connect, links
from tests.cluster.driving import story, trained
from tests.hosts.driving import Driver, Head
from tests.hosts.raycluster import RayCluster
from tests.hosts.strikes import CONFIRMATION, REPORT, SEARCH
from tests.postgres import Postgres, serving
from tests.tracking.serving import Server, free_port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("soak") is None:
            item.add_marker(pytest.mark.hosts)
            item.add_marker(pytest.mark.timeout(1200))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if REPORT:
        terminalreporter.section("faults that were injected")
        terminalreporter.write_line("\n".join(REPORT))


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
def database(head: Head) -> Iterator[Postgres]:
    """A PostgreSQL that all hosts reach, and whose password the tests know."""
    with serving(head.cluster.outside) as made, pytest.MonkeyPatch.context() as patch:
        made.create("studies")
        patch.setenv("PGPASSWORD", made.password)
        yield made


@pytest.fixture(scope="session")
def tracking(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow that all hosts reach."""
    folder, port = tmp_path_factory.mktemp("tracking"), free_port()
    connect(folder)  # makes its tables
    argv, env = links.server(folder, port)
    argv[argv.index("--host") + 1] = head.cluster.outside
    server = Server(argv, env, folder, f"http://{head.cluster.outside}:{port}")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def undisturbed(head: Head, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The study ``together``, left alone: its workspace, how many epochs it trains in each phase, and its story."""
    workspace = tmp_path_factory.mktemp("hosts") / "undisturbed"
    driver = Driver(head, "together", workspace)
    driver.end()
    epochs = {SEARCH: trained(driver.folder, "trial"), CONFIRMATION: trained(driver.folder, "confirmation")}
    return {"workspace": workspace, "epochs": epochs, "story": story(driver.folder)}
