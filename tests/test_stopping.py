from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from marginlab import stopping
from marginlab.stopping import gracefully


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_the_first_ctrl_c_asks_the_second_stops_at_once(number: signal.Signals, tmp_path: Path) -> None:
    said: list[str] = []
    before = signal.getsignal(number)
    with gracefully(tmp_path, lambda: True, said.append):
        os.kill(os.getpid(), number)
        assert stopping.asked(tmp_path) and "the epochs in progress end first" in said[0]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before and len(said) == 1
    stopping.clear(tmp_path)
    assert not stopping.asked(tmp_path)


def test_while_no_epoch_is_in_progress_the_first_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with gracefully(tmp_path, lambda: False, print), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert not stopping.asked(tmp_path)


def test_a_signal_to_a_forked_child_is_the_childs_alone(tmp_path: Path) -> None:
    ready, tell = os.pipe()  # a signal that arrives while Python forks is lost, whoever handles it
    with gracefully(tmp_path, lambda: True, print):
        child = os.fork()
        if child == 0:
            os.write(tell, b".")
            for _ in range(1000):
                time.sleep(0.01)
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    os.close(ready)
    os.close(tell)
    assert not stopping.asked(tmp_path)


def test_a_handler_outlives_what_a_library_installs(tmp_path: Path) -> None:
    default = signal.SIG_DFL
    before = signal.signal(signal.SIGTERM, default)  # Ray's own may be there, from a test before
    try:
        with gracefully(tmp_path, lambda: True, lambda sentence: None):
            with stopping.handlers_kept():
                signal.signal(signal.SIGTERM, lambda *_: None)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopping.asked(tmp_path)
        with stopping.handlers_kept():
            own = signal.signal(signal.SIGTERM, theirs := lambda *_: None)
        assert own is default and signal.getsignal(signal.SIGTERM) is theirs  # there was none of Python's
    finally:
        signal.signal(signal.SIGTERM, before)
