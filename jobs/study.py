"""A whole study as a job on a Ray cluster.

    ray job submit --working-dir . -- python jobs/study.py studies/demo.py --workspace /mnt/marginlab

Takes the arguments of `marginlab run`. The job joins the cluster that it was submitted to; the workspace must be a folder that
all nodes see. Submitted again, it carries on. `marginlab submit studies/demo.py` does the same, and more.
"""

import sys
from pathlib import Path

# The code that was submitted, whatever is installed on the nodes.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from marginlab.job import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
