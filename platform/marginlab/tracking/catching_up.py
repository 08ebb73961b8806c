"""What follows from a study's end, sent again from its folder alone: champions, report, answer, and the views behind the links."""

from __future__ import annotations

from pathlib import Path

from marginlab.files import read_json
from marginlab.replay import find_data
from marginlab.results import Results
from marginlab.tracking import champion, links
from marginlab.tracking.projector import Tracker
from marginlab.values import InputError


def catch_up(tracker: Tracker, workspace: Path) -> list[str]:
    """Send it, as far as it is there; returns what is not, in sentences. A study that is not done has nothing but its runs.

    Args:
        tracker: of the study, which was synced.
        workspace: where the packed datasets are: a champion goes out with what it has to know of its data.

    Raises:
        TrackingAway: MLflow does not answer.
    """
    record, status = read_json(tracker.folder / "study.json"), tracker.folder / "status.json"
    missing, packed = [], {}
    if status.exists() and read_json(status)["step"] == "done":
        for name, fingerprint in record["data"].items():
            try:
                packed[name] = find_data(workspace, fingerprint).folder
            except InputError as e:
                missing.append(f"The champion on {name} was not registered: {e}")
        champion.register(tracker, packed)
        tracker.attach(tracker.folder / "report", answered(Results.open(tracker.folder)))
    links.comparison(tracker)
    return missing


def answered(results: Results) -> str:
    """A study's answer in a sentence per dataset; empty where it declared no contrast."""
    from marginlab.compare import answers
    from marginlab.report.words import answer_sentence

    return " ".join(f"{a.dataset}: {answer_sentence(a)}" for a in answers(results))
