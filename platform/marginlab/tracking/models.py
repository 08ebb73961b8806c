"""A run's best weights among MLflow's models: ranked by validation, and linked to the step that they are from.

The weights stay the run's artifact ``best.safetensors``: a second copy of each would double what a study stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marginlab.tracking import describe

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_OF = "marginlab.best_of"  # tag of a model: the run whose best weights it is
_EXTERNAL = "mlflow.model.isExternal"


def linked(
    client: MlflowClient, experiment: str, run: str, name: str, record: dict[str, Any], step: int, fresh: bool = False
) -> str:
    """The id of the model of a run's best weights, made and linked to its step where that is not done yet.

    Args:
        run: MLflow's id of it.
        name: of the run, for people.
        record: of ``run.json``.
        step: the best epoch.
        fresh: it is known that the run has no model yet: nothing is looked for.
    """
    from mlflow.entities import LoggedModelOutput

    found = None if fresh else best_of(client, experiment, run)
    if found is None:
        labels = record["labels"]
        shown = {k: str(labels[k]) for k in ("kind", "dataset", "arm", "margin_policy", "study")}
        found = client.create_logged_model(
            experiment,
            name=_legal(name),
            source_run_id=run,
            tags={**shown, _OF: run, "weights": "the source run's artifact best.safetensors", _EXTERNAL: "true"},
            params=describe.flatten(record["run"]["training"]),
        )
    outputs = None if fresh else client.get_run(run).outputs
    if found.model_id not in [m.model_id for m in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run, [LoggedModelOutput(found.model_id, step)])
    if str(found.status) != "READY":
        client.finalize_logged_model(found.model_id, "READY")
    return str(found.model_id)


def best_of(client: MlflowClient, experiment: str, run: str) -> LoggedModel | None:
    found = client.search_logged_models([experiment], f"tags.`{_OF}` = '{run}'", max_results=1)
    return found[0] if found else None


def _legal(name: str) -> str:
    """MLflow takes no / : . % and quotes in the name of a model."""
    return "".join("-" if c in "/:.%\"'" else c for c in name)
