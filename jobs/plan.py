"""What a study would cost on a Ray cluster and how it lies on its machines, as a job on it: trains nothing.

    ray job submit --working-dir . -- python jobs/plan.py studies/demo.py --address auto --workspace /mnt/marginlab

Takes the arguments of `marginlab plan`.
"""

import sys
from pathlib import Path

# The code that was submitted, whatever is installed on the nodes.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from marginlab.job import main

if __name__ == "__main__":
    main(["plan", *sys.argv[1:]])
