"""A whole study as a job on a Ray cluster.

    ray job submit --working-dir . -- python jobs/study.py studies/demo.py --workspace /shared/marginlab

Takes the arguments of `marginlab run`. The job joins the cluster that it was submitted to; the workspace must be a folder that
all nodes see. Submitted again, it carries on.
"""

import sys

from marginlab.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
