"""Runs the benchmarks and writes their sections of BENCHMARKS.md.

make bench                   # all of tests/benchmarks/bench_*.py
make bench ONLY=losses       # bench_losses.py; the other sections stay as they are
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import platform
from pathlib import Path
from types import ModuleType

import torch

HERE = Path(__file__).parent
FILE = HERE.parents[1] / "BENCHMARKS.md"
HEAD = """# Benchmarks

Written by `make bench`. A ratio is the median over turns, with the quartiles in brackets; both sides of it take turns in one
process with equally many threads. Numbers of other machines differ; run it on a quiet one.
"""


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.processor())


def section(module: ModuleType, name: str) -> str:
    """Measures, and says so while it does."""
    machine = f"{processor()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} before"
    lines = [f"## {name}", "", f"`make bench ONLY={name}` on {datetime.date.today()}; {machine}.", ""]
    lines += ["| what | goal | measured | |", "|---|---|---|---|"]
    for row in module.rows():
        verdict = "" if row.met is None else "met" if row.met else "**missed**"
        lines.append(f"| {row.what} | {row.goal} | {row.measured} | {verdict} |")
        print(lines[-1], flush=True)
    note = getattr(module, "NOTE", "").strip()
    return "\n".join([*lines, "", note] if note else lines) + "\n"


def write(new: dict[str, str]) -> None:
    """The sections in the order of their names; those that are not new stay."""
    old = FILE.read_text().split("\n## ")[1:] if FILE.exists() else []
    sections = {x.partition("\n")[0]: f"## {x.rstrip()}\n" for x in old} | new
    FILE.write_text("\n".join([HEAD, *(sections[name] for name in sorted(sections))]))


def main() -> None:
    names = sorted(p.stem.removeprefix("bench_") for p in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", metavar="NAME", help=", ".join(names))
    only = parser.parse_args().only
    if unknown := set(only) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    for name in only or names:
        print(f"\n{name}", flush=True)
        write({name: section(importlib.import_module(f"bench_{name}"), name)})


if __name__ == "__main__":
    main()
