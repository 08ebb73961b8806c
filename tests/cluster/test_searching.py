"""What goes to a trial's process besides its work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.execution import FixedResourceManager
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import Trainable
from ray.tune.execution.class_cache import _ActorClassCache

from marginlab.cluster import searching


def test_tune_sends_no_keys_of_the_drivers_along(monkeypatch: pytest.MonkeyPatch) -> None:
    assert searching.ENV_VARS_TO_PROPAGATE
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    sent = _ActorClassCache().get(Trainable)._default_options["runtime_env"]["env_vars"]
    assert sent["RAY_CHDIR_TO_TRIAL_DIR"] == "0" and "hunter2" not in sent.values()


def test_a_trial_that_rays_memory_monitor_ended_is_one_that_died() -> None:
    told: list[Any] = []
    trial = SimpleNamespace(actor_id=1, _on_error=None)
    task = SimpleNamespace(_tracked_actor=trial, _on_error=lambda actor, error: told.append((actor, error)))
    manager = RayActorManager(FixedResourceManager({}))
    manager._cleanup_actor = lambda tracked_actor: None
    died = OutOfMemoryError("Task was killed due to the node running low on memory.")
    manager._actor_task_failed(tracked_actor_task=task, exception=died)
    ((actor, error),) = told
    assert actor is trial and isinstance(error, RayActorError) and "low on memory" in str(error)
