"""Look at everything a study needs, on every node of a Ray cluster, as a job on it.

    ray job submit --working-dir . -- python jobs/doctor.py studies/demo.py --address auto --workspace /mnt/marginlab

Takes the arguments of `marginlab doctor`. With `--address auto` every node looks at itself; what is to be mended is in the job's log,
and the job has failed if there is anything.
"""

import sys
from pathlib import Path

# The code that was submitted, whatever is installed on the nodes.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from marginlab.job import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
