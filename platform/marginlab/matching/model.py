"""A champion, opened: its settings (``config.json``) and weights (safetensors). Nothing that lies in its folder is run.

The network is built by the MarginLab that is installed. Only one that a study file of somebody's defines has its code in the
folder (``code/``), and running that has to be allowed.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from marginlab.data.packed import PackedDataset
from marginlab.matching.impostors import Rates
from marginlab.networks import build_seeded
from marginlab.networks.weights import unweighted
from marginlab.precision import forward
from marginlab.stored import Stored, visits
from marginlab.values import InputError, from_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = ("config.json", "model.safetensors")
BATCH = 256  # images
_URI = re.compile(r"(models|runs|mlflow-artifacts):/")
_ANEW = "give the folder of its run as MODEL, or register it anew with marginlab run STUDY.py"


def describe(record: dict[str, Any], run_folder: Path, dataset: PackedDataset) -> dict[str, Any]:
    """What has to be known of a run besides its weights, as JSON data. ``record``: run.json."""
    rates = rates_of(run_folder, dataset)
    return {
        "training": record["run"]["training"],
        "channels": dataset.channels,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "size": dataset.size,
        "crop": dataset.info.get("crop"),  # pixels of the centre that prepare cut out first, where an image has them
        "mirrored": dataset.info.get("mirrored"),  # sides whose images prepare mirrored; null: not recorded
        "trim": dataset.info.get("trim", False),  # whether prepare cut off dark borders
        "dataset": record["run"]["dataset"],
        "data": dataset.fingerprint,
        "phantom": dataset.phantom,
        "run": record["id"],
        "rates": None if rates is None else rates.to_json(),
    }


def rates_of(run_folder: Path, dataset: PackedDataset) -> Rates | None:
    """Counted on the run's validation embeddings; None where it has none, and for a network that knows grades, not people."""
    path = run_folder / "embeddings" / "validation.parquet"
    if dataset.graded or not path.exists():
        return None
    stored = Stored.open(path)
    frame = stored.frame
    subject = np.unique(dataset.manifest["subject"].to_numpy(), return_inverse=True)[1][frame["row"].to_numpy()]
    label = frame["label"].to_numpy()
    everything = torch.cat(list(stored.pieces(np.ones(len(stored), dtype=bool))))
    return Rates.of(everything, subject, label, visits(label, frame["months"].to_numpy()))


class Embedder:
    """Prepared images in, embeddings out."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor], device: str | None = None) -> None:
        self.config = config
        if device not in (None, "cpu", "cuda"):
            raise InputError(f"The device is cpu or cuda, not {device!r}.")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.channels, self.size = int(config["channels"]), int(config["size"])
        # The loss and the margin policy, which may be a study's own, are not needed to embed.
        self.augment = from_json(config["training"]["augment"])
        network = build_seeded(unweighted(from_json(config["training"]["network"])), self.channels, 0)
        try:
            network.load_state_dict(weights)
        except RuntimeError as e:
            raise InputError(
                f"The weights are not those of the network in config.json: {str(e).splitlines()[-1].strip()}"
            ) from None
        try:
            self.network = network.to(self.device).eval()
        except (RuntimeError, AssertionError) as e:
            raise InputError(f"There is no device {str(self.device)!r} here ({str(e).splitlines()[0]}).") from None

    @classmethod
    def open(cls, folder: Path | str, *, trust_code: bool = False, device: str | None = None) -> Embedder:
        """A model's folder, as saved for MLflow: nothing in it is run but, if ``trust_code``, a study's own network."""
        folder = Path(folder)
        paths = [next((p for p in (folder / "artifacts" / f, folder / f) if p.is_file()), None) for f in FILES]
        for name, path in zip(FILES, paths, strict=True):
            if path is None:
                raise InputError(
                    f"{folder} has no artifacts/{name}: it is no champion of MarginLab, and other models are not run."
                )
        settings, weights = paths
        assert settings is not None and weights is not None
        try:
            config = json.loads(settings.read_text())
            tensors = load_file(weights)
        except (ValueError, SafetensorError):
            raise InputError(f"{folder}: config.json or model.safetensors is damaged; save the model again.") from None
        return cls._checked(str(folder), config, tensors, folder / "code", trust_code, device)

    @classmethod
    def of_run(
        cls,
        run: Path,
        dataset: PackedDataset,
        *,
        trust_code: bool = False,
        device: str | None = None,
    ) -> Embedder:
        """A run's best network. ``dataset``: the one that it was trained on."""
        record = json.loads((run / "run.json").read_text())
        dataset.require(record["run"]["data"])
        if not (run / "best.safetensors").is_file():
            raise InputError(f"{run} has no best.safetensors: the run has not finished an epoch.")
        config = describe(record, run, dataset)
        code = next((p / "code" for p in run.parents if (p / "study.json").exists()), run / "code")
        return cls._checked(str(run), config, load_file(run / "best.safetensors"), code, trust_code, device)

    @classmethod
    def _checked(
        cls,
        place: str,
        config: dict[str, Any],
        weights: dict[str, Tensor],
        code: Path,
        trusted: bool,
        device: str | None,
    ) -> Embedder:
        missing = [k for k in ("training", "channels", "mean", "std", "size", "run") if k not in config]
        if missing:
            raise InputError(f"{place}: config.json has no {missing[0]!r}: it is no champion of MarginLab.")
        own = sorted(set(_types([config["training"].get(k) for k in ("network", "augment")])))
        if own and not trusted:
            raise InputError(
                f"{place}: its network is code of a study's own ({', '.join(own)}), and opening it runs that code with your "
                "rights. Read it, then say --trust-code."
            )
        if own and code.is_dir() and str(code) not in sys.path:
            sys.path.append(str(code))
        return cls(config, weights, device)

    @property
    def rates(self) -> Rates | None:
        """How often other people's images are as alike; None in models that were saved without."""
        found = self.config.get("rates")
        return None if found is None else Rates.from_json(found)

    def lacks(self, rates: bool = True) -> list[str]:
        """What a model of an earlier MarginLab does not record, in sentences. ``rates``: of false matches, too."""
        said = []
        if "crop" not in self.config:
            said.append(f"The model does not record how prepare cropped its images, so they are taken whole: {_ANEW}.")
        if self.config.get("mirrored") is None:
            said.append(
                "The model does not record which sides were mirrored: if right knees were, mirror them by --flip."
            )
        if rates and self.config.get("rates") is None:
            said.append(f"The model holds no counts of impostor pairs, so false-match rates are unknown: {_ANEW}.")
        return said

    @property
    def phantom(self) -> str | None:
        """The phantom that it was trained on, None for real images."""
        found: str | None = self.config.get("phantom")
        return found

    @property
    def id(self) -> str:
        """Of the network and of how images are made ready for it: only embeddings of one id can be compared."""
        ready = [self.config.get(k) for k in ("run", "size", "crop", "channels", "mean", "std")]
        if self.config.get("trim"):  # later than the others: models without it keep their id
            ready.append("trim")
        return hashlib.sha256(json.dumps(ready).encode()).hexdigest()[:16]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Embeddings, float32 [n, D] of length 1, of prepared images, uint8 [n, C, size, size]."""
        parts = []
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).to(self.device)
            parts.append(forward(self.network, self.augment.evaluate(pixels, self.mean, self.std)).cpu().numpy())
        return np.concatenate(parts)


@contextmanager
def opened(
    model: str,
    workspace: Path,
    *,
    tracking_uri: str | None = None,
    trust_code: bool = False,
    device: str | None = None,
) -> Iterator[Embedder]:
    """What a user calls a model: a URI (``models:/study-oai@champion``), a model's folder, or a run's.

    Raises:
        InputError: it is none of these, or has code of its own that was not allowed to run.
    """
    if _URI.match(model):
        with TemporaryDirectory() as temporary:
            yield Embedder.open(
                _fetched(model, workspace, tracking_uri, Path(temporary)), trust_code=trust_code, device=device
            )
        return
    folder = Path(model).expanduser()
    if (folder / "run.json").is_file():
        from marginlab.replay import find_data

        data = json.loads((folder / "run.json").read_text())["run"]["data"]
        yield Embedder.of_run(folder, find_data(workspace, data), trust_code=trust_code, device=device)
    elif folder.is_dir():
        yield Embedder.open(folder, trust_code=trust_code, device=device)
    else:
        raise InputError(
            f"There is no model {model!r}: give a URI such as models:/STUDY-oai@champion, the folder of a model, or the folder "
            "of a run."
        )


def _fetched(uri: str, workspace: Path, tracking_uri: str | None, into: Path) -> Path:
    from marginlab.tracking.store import connect, default_uri

    if tracking_uri is None and not (workspace / "mlflow.db").exists():
        raise InputError(
            f"{workspace} has no mlflow.db, so {uri} cannot be looked up: give --workspace or --tracking-uri."
        )
    store = connect(workspace, tracking_uri or default_uri(workspace))
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        place = _artifacts(uri, store.client)
        return Path(download_artifacts(place, dst_path=str(into), tracking_uri=store.uri))
    except (MlflowException, OSError) as e:
        said = str(e).strip().splitlines()[0].rstrip(".")
        raise InputError(
            f"{uri} cannot be had from {store.shown_uri} ({said}): marginlab ui lists what is registered."
        ) from None


def _artifacts(uri: str, client: MlflowClient) -> str:
    """Where a model's files are. MLflow would look ``models:/`` up in its global registry, whatever it is told."""
    if not uri.startswith("models:/"):
        return uri
    name, at, alias = uri.removeprefix("models:/").strip("/").partition("@")
    if at:
        return str(client.get_model_version_download_uri(name, client.get_model_version_by_alias(name, alias).version))
    name, numbered, version = name.rpartition("/")
    if numbered:
        return str(client.get_model_version_download_uri(name, version))
    return str(client.get_logged_model(version).artifact_location)


def _types(recorded: Any) -> Iterator[str]:
    """The types in recorded values that are not MarginLab's own."""
    if isinstance(recorded, dict):
        kind = str(recorded.get("type", "marginlab."))
        if not kind.startswith("marginlab."):
            yield kind
        recorded = list(recorded.values())
    if isinstance(recorded, (list, tuple)):
        for part in recorded:
            yield from _types(part)
