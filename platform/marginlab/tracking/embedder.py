"""The champion as an MLflow model: uint8 images in, embeddings out. MLflow keeps this file itself, and no pickle.

Nothing imports this module; MLflow runs it when the model is saved and when it is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from safetensors.torch import load_file

from marginlab.training import forward
from marginlab.values import from_json

BATCH = 256  # images


class Embedder(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    def load_context(self, context: Any) -> None:
        config = json.loads(Path(context.artifacts["config"]).read_text())
        training = config["training"]
        # The loss and the margin policy, which may be a study's own, are not needed to embed.
        self.augment = from_json(training["augment"])
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = from_json(training["network"]).build(config["channels"])
        self.network.load_state_dict(load_file(context.artifacts["weights"]))
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Embeddings, float32 [n, D] of length 1, of prepared images, uint8 [n, C, H, W]."""
        parts = []
        for start in range(0, len(model_input), BATCH):
            pixels = torch.from_numpy(np.ascontiguousarray(model_input[start : start + BATCH])).to(self.device)
            images = self.augment.evaluate(pixels, self.mean, self.std)
            parts.append(forward(self.network, images).cpu().numpy())
        return np.concatenate(parts)


mlflow.models.set_model(Embedder())
