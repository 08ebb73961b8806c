"""What goes to a trial's process besides its work."""

from __future__ import annotations

import pytest
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
