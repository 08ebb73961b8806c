"""The cluster files say what Ray understands, the Ray that we pin, and nothing that opens a cluster to the network."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from marginlab.cluster.machines import Machines
from marginlab.cluster.session import may_come

ROOT = Path(__file__).parents[2]
AWS = ROOT / "ray_cluster.yaml"
ONPREM = ROOT / "docs" / "ray_cluster_onprem.yaml"
both = pytest.mark.parametrize("path", [AWS, ONPREM], ids=["aws", "onprem"])


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def check(config: dict[str, Any]) -> dict[str, Any]:
    """What ``ray up`` does to a file before it talks to a cloud."""
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def ray_starts(config: dict[str, Any]) -> list[str]:
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [c for c in commands if "ray start" in c]


def pinned_ray() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return next(m[1] for d in project["dependencies"] if (m := re.fullmatch(r"ray\[.*\]==(.+)", d)))


@both
def test_ray_accepts_the_file(path: Path) -> None:
    check(load(path))


@pytest.mark.parametrize(
    ("path", "where", "key", "bad"),
    [
        (AWS, [], "idle_timeout", 10),
        (AWS, [], "max_workers", "eight"),
        (AWS, ["available_node_types", "gpu"], "min_worker", 0),
        (AWS, ["provider"], "region", 2),
        (ONPREM, [], "setup_comands", []),
        (ONPREM, ["provider"], "head_ip", 10),
    ],
)
def test_a_broken_key_is_caught(path: Path, where: list[str], key: str, bad: Any) -> None:
    config = load(path)
    place = config
    for step in where:
        place = place[step]
    place[key] = bad
    with pytest.raises(ValidationError):
        check(config)


@both
def test_nodes_run_the_ray_that_the_project_pins(path: Path) -> None:
    assert re.findall(r"ray, version ([\d.]+)", path.read_text()) == [pinned_ray()]
    for lock in ("cpu", "gpu"):
        assert re.findall(r"^ray==(\S+)", (ROOT / f"locks/{lock}.txt").read_text(), re.M) == [pinned_ray()]


@both
def test_every_node_asks_for_the_token_and_reports_nothing(path: Path) -> None:
    starts = ray_starts(load(path))
    assert len(starts) == 2
    for start in starts:
        assert "RAY_AUTH_MODE=token" in start
        assert "RAY_USAGE_STATS_ENABLED=0" in start


@both
def test_the_dashboard_is_reached_by_tunnel_only(path: Path) -> None:
    head = next(s for s in ray_starts(load(path)) if "--head" in s)
    assert re.findall(r"--dashboard-host=(\S+)", head) == ["127.0.0.1"]


def test_nothing_that_trains_fits_on_the_head() -> None:
    aws = check(load(AWS))
    assert aws["available_node_types"][aws["head_node_type"]]["resources"] == {"CPU": 0}
    assert "--num-cpus=0 --num-gpus=0" in next(s for s in ray_starts(load(ONPREM)) if "--head" in s)


def test_the_default_cluster_costs_nothing_while_idle() -> None:
    gpu = check(load(AWS))["available_node_types"]["gpu"]
    assert gpu["min_workers"] == 0 and gpu["resources"]["GPU"] >= 1


@both
def test_what_is_copied_to_nodes_exists_and_holds_no_data(path: Path) -> None:
    sources = [Path(s) for s in load(path)["file_mounts"].values()]
    inside = [s for s in sources if not str(s).startswith("~")]
    assert inside and all((ROOT / s).exists() for s in inside)
    scripts = {"docs/head_services.sh"} | ({"docs/spot_notice.sh"} if path == AWS else set())
    assert {str(s) for s in sources} == {"locks", "~/.ray/auth_token"} | scripts


def test_spot_notices_are_for_workers_alone() -> None:
    config = load(AWS)
    assert "spot_notice.sh $RAY_HEAD_IP:6379" in config["worker_start_ray_commands"][-1]
    assert not any("spot_notice" in c for c in config["setup_commands"] + config["head_start_ray_commands"])


@both
def test_the_heads_services_are_for_the_head_alone(path: Path) -> None:
    config = load(path)
    assert config["head_start_ray_commands"][0] == "bash ~/marginlab/head_services.sh /mnt/marginlab"
    assert not any("head_services" in c for c in config["setup_commands"] + config["worker_start_ray_commands"])
    script = (ROOT / "docs" / "head_services.sh").read_text()
    assert re.findall(r"(?:--host|listen_addresses=)[ ]?([\w.]+)", script) == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize(
    ("path", "most", "says"),
    [
        (AWS, 8, "8 machines with 8 CPUs and 1 GPU"),
        (AWS, 3, "3 machines with 8 CPUs and 1 GPU"),
        (ONPREM, 2, "no machine"),
    ],
)
def test_what_may_come_is_read_from_what_ray_up_leaves_on_the_head(
    path: Path, most: int, says: str, tmp_path: Path
) -> None:
    left = tmp_path / "ray_bootstrap_config.yaml"
    assert may_come(left) == []
    left.write_text(json.dumps(check(load(path) | {"max_workers": most})))  # JSON, as Ray writes it
    assert str(Machines(tuple(may_come(left)))) == says
