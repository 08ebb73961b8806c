"""Embeddings of new images by a trained network, as a job on a Ray cluster.

    ray job submit --working-dir . --entrypoint-num-gpus 1 -- python jobs/embed.py RUN_FOLDER /mnt/marginlab/raw/new \
        --out /mnt/marginlab/embeddings.parquet --workspace /mnt/marginlab

Takes the arguments of `marginlab embed`; all paths are those of the node. A GPU node does not reach an MLflow that listens on the head's
127.0.0.1: name a run's folder there or a model's, and `models:/...` only where the server can be reached.
"""

import sys
from pathlib import Path

# The code that was submitted, whatever is installed on the nodes.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from marginlab.job import main

if __name__ == "__main__":
    main(["embed", *sys.argv[1:]])
