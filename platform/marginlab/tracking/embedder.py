"""The champion as an MLflow model: uint8 images in, embeddings out. MLflow keeps this file itself, and no pickle.

Nothing imports this module; MLflow runs it when the model is saved and when it is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from safetensors.torch import load_file

from marginlab.matching.model import Embedder


class Champion(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    def load_context(self, context: Any) -> None:
        config = json.loads(Path(context.artifacts["config"]).read_text())
        self.embedder = Embedder(config, load_file(context.artifacts["weights"]))

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Embeddings, float32 [n, D] of length 1, of prepared images, uint8 [n, C, H, W]."""
        return self.embedder(model_input)


mlflow.models.set_model(Champion())
