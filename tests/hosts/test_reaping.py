"""The reaper on a real cluster: what was forgotten is given back, what is used, waits or is about to be used is left alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.hosts.driving import Head


def reap(address: str, out: Path) -> None:
    """On the head: of four CPUs one group has two, used, and one, forgotten, has two; a third waits for its place."""
    import ray
    from ray.util.placement_group import placement_group, placement_group_table
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from marginlab.cluster import reaper

    reaper.LOOK_S, reaper.EMPTY_S, reaper.UNPLACED_S = 0.5, 5.0, 60.0
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")

    @ray.remote(num_cpus=1)
    class Worker:
        def here(self) -> bool:
            return True

    def work(group: Any) -> Any:
        place = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=0)
        worker = Worker.options(scheduling_strategy=place).remote()
        assert ray.get(worker.here.remote())
        return worker

    def state(group: Any) -> str:
        return str(placement_group_table(group)["state"])

    two = [{"CPU": 1}, {"CPU": 1}]
    said: list[str] = []
    with reaper.reaping(reaper.there(), said.append):
        used, forgotten = placement_group(two), placement_group(two)
        ray.get([used.ready(), forgotten.ready()])
        worker, waiting = work(used), placement_group(two)
        assert waiting.wait(120)  # placed once the forgotten one's CPUs are free, and used at once
        late = work(waiting)
        time.sleep(4 * reaper.EMPTY_S)  # it looks often enough to make a mistake
        found = {"used": state(used), "forgotten": state(forgotten), "waiting": state(waiting), "said": said}
        assert ray.get([worker.here.remote(), late.here.remote()]) == [True, True]
    out.write_text(json.dumps(found))


def end_cleaners(address: str, out: Path) -> None:
    """On the head: two of Ray Train's cleaners that nobody has told to look, one of which is found while a controller lives."""
    import ray
    from ray.train.v2._internal.execution.controller.placement_group_cleaner import PlacementGroupCleaner

    from marginlab.cluster import reaper

    reaper.LOOK_S, reaper.EMPTY_S, reaper.GOING_S = 0.5, 5.0, 1.0
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    job = ray.get_runtime_context().get_job_id()

    # A class of this function's would have another full name.
    named = type(reaper.CONTROLLER, (), {"here": lambda self: True})

    def forget() -> None:
        lasting = {"lifetime": "detached", "resources": {reaper.HEAD: 0.001}}
        cleaner = ray.remote(num_cpus=0)(PlacementGroupCleaner).options(**lasting).remote("no one", 1.0, 5.0, None)
        assert not ray.get(cleaner._stop_monitor_thread.remote())  # it is there

    counts, said = [len(reaper.look(job).cleaners)], []
    forget()
    counts.append(len(reaper.look(job).cleaners))
    with reaper.reaping(reaper.there(), said.append):
        time.sleep(3 * reaper.EMPTY_S)
    counts.append(len(reaper.look(job).cleaners))
    controller = ray.remote(num_cpus=0)(named).remote()
    assert ray.get(controller.here.remote())
    forget()
    reaper.end_cleaners()
    counts.append(len(reaper.look(job).cleaners))
    ray.kill(controller)
    time.sleep(2)
    counts.append(len(reaper.look(job).cleaners))
    reaper.end_cleaners()
    time.sleep(2)
    counts.append(len(reaper.look(job).cleaners))
    out.write_text(json.dumps({"counts": counts, "said": said}))


def test_what_ray_train_leaves_to_look_after_nothing_is_ended(head: Head) -> None:
    out = head.cluster.folder / "ended.json"
    head.do(end_cleaners, head.cluster.address, out, limit_s=240)
    # None; forgotten; ended while the study runs; not judged while a controller lives; forgotten; ended at the study's end.
    assert json.loads(out.read_text()) == {"counts": [0, 1, 0, 0, 1, 0], "said": []}


def test_what_was_forgotten_is_given_back(head: Head) -> None:
    out = head.cluster.folder / "reaped.json"
    head.do(reap, head.cluster.address, out, limit_s=240)
    found = json.loads(out.read_text())
    assert len(found.pop("said")) == 1
    assert found == {"used": "CREATED", "forgotten": "REMOVED", "waiting": "CREATED"}
    head.nothing_reserved()
