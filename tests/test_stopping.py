from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from marginlab import stopping
from marginlab.stopping import gracefully


def test_the_first_ctrl_c_asks_the_second_stops_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with gracefully(tmp_path, lambda: True, said.append):
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.asked(tmp_path) and "the epochs in progress end first" in said[0]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before and len(said) == 1
    stopping.clear(tmp_path)
    assert not stopping.asked(tmp_path)


def test_while_no_epoch_is_in_progress_the_first_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with gracefully(tmp_path, lambda: False, print), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert not stopping.asked(tmp_path)
