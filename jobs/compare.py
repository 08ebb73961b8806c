"""A study's answer and its report, written where its run folders are: on a cluster's storage.

    ray job submit --working-dir . -- python jobs/compare.py automargin-demo --workspace /mnt/marginlab

Takes the arguments of `marginlab compare`. The answer is the job's log.
"""

import sys
from pathlib import Path

# The code that was submitted, whatever is installed on the nodes.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from marginlab.job import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
