"""An image of a packed dataset for a page: a small PNG inside it."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

SIDE = 96  # pixels; larger ones are made smaller


def data_uri(pixels: np.ndarray, side: int = SIDE) -> str:
    """An image [C, H, W] of the store, uint8, as a PNG data URI: grey, or RGB where it has three channels."""
    image = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, 2)) if len(pixels) == 3 else pixels[0])
    if max(image.size) > side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
