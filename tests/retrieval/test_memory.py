from __future__ import annotations

import torch

from marginlab.retrieval import memory

CPU = torch.device("cpu")


def test_a_block_is_as_large_as_suits_the_device_and_smaller_where_less_is_free(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**40)
    assert memory.block_bytes(CPU) == 2**25
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**24)
    assert memory.block_bytes(CPU) == 2**22


def test_free_memory_is_what_system_and_container_leave(tmp_path):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:       100 kB\nMemFree:   1 kB\nMemAvailable:   70 kB\n")
    assert memory._system(info) == 70 * 1024
    assert memory._system(tmp_path / "absent") > 2**60
    for name, text in (("memory.max", "5000\n"), ("memory.current", "4000\n"), ("memory.stat", "inactive_file 300\n")):
        (tmp_path / name).write_text(text)
    assert memory._container(tmp_path) == 1300
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._container(tmp_path) > 2**60
    assert 0 < memory.free_bytes(CPU) < 2**60
