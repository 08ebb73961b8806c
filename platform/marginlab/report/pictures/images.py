"""Images of a packed dataset for a page: small PNGs inside it. Whose images may be shown is decided here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marginlab.data.packed import PackedDataset
from marginlab.data.thumbnail import data_uri
from marginlab.files import read_json
from marginlab.results import Results
from marginlab.values import InputError

ON_REQUEST = "Images of people are shown on request alone: marginlab compare STUDY --galleries."


@dataclass(frozen=True, eq=False)
class Images:
    packed: PackedDataset

    @classmethod
    def of(cls, results: Results, dataset: str, *, restricted: bool = False, workspace: Path | None = None) -> Images:
        """The images that a study was tested on, found by their fingerprint in the workspace (by default the study's own).

        Args:
            restricted: whether images that are not synthetic may be shown; without it they are refused.

        Raises:
            InputError: a sentence for the reader of the page, where there is nothing to show.
        """
        if not (results.phantom(dataset) or restricted):
            raise InputError(ON_REQUEST)
        root = results.folder.resolve().parent.parent if workspace is None else Path(workspace)
        wanted = results.plan.data[dataset]
        for description in sorted((root / "data").glob("*/dataset.json")):
            if _fingerprint(description) == wanted:
                packed = PackedDataset.open(description.parent)
                # What the images themselves say counts, not what the study was told.
                if packed.phantom is None and not restricted:
                    raise InputError(ON_REQUEST)
                return cls(packed)
        raise InputError(f"The packed dataset is not in this workspace ({root}): its images cannot be shown.")

    def uri(self, row: int) -> str:
        """An image of the store as a PNG data URI."""
        return data_uri(np.asarray(self.packed.pixels[row]))


def _fingerprint(description: Path) -> object:
    """What a packed folder says it holds; None of one that cannot be read, which is not the one looked for."""
    try:
        return read_json(description)["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
