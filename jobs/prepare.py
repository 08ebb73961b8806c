"""Decode a dataset as a job on a Ray cluster.

    ray job submit --working-dir . -- python jobs/prepare.py oai /data/OAI --address auto --workspace /mnt/marginlab

Takes the arguments of `marginlab prepare`. With `--address auto` all nodes decode, which must see the raw folder alike; without it
the head does. Submitted again, it carries on. The map from rows to raw files and its key are private to the head's user
(`~/.local/share/marginlab`, or XDG_DATA_HOME).
"""

import sys
from pathlib import Path

# The code that was submitted, whatever is installed on the nodes.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from marginlab.job import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
