"""A study's results, read back from its folder. Finished, interrupted or running: what is there is used, what is not is listed.

    <study>/study.json     {"study", "data": fingerprints of the packed datasets}
            optuna.db      the searches; summary.json stands in where it was not copied along. Or storage.json: which database has them
            runs/**        run folders
            summary.json   {"steps": seconds of each step, "searches", "machine"}; absent until a study has ended once

The unit of every test figure is the seed: the models that a seed trained on several folds answer as one ensemble.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from marginlab import study_database
from marginlab.declaration import read_plan, redeclarations
from marginlab.ensembles import scored
from marginlab.files import read_json
from marginlab.fresh import Fresh
from marginlab.plan import Plan, SearchKey
from marginlab.ranked import Ranked, Split, embeddings, rankings
from marginlab.runs import RunFolder
from marginlab.scores import QUERIES, long_scores, query_means
from marginlab.search import read_progress, read_trials
from marginlab.study import Study

LABELS = {
    "id": pl.String,
    "kind": pl.String,  # trial, confirmation (of a winner), default (the published one) or incumbent (of a search)
    "dataset": pl.String,
    "arm": pl.String,
    "replicate": pl.Int64,
    "trial": pl.Int64,
    "seed_index": pl.Int64,
    "fold": pl.Int64,
    "current": pl.Boolean,  # False: on fresh seeds, and of parameters that are no longer the winner, or no longer planned
}
RUNS = {
    **LABELS,
    "margin_policy": pl.String,
    "seed": pl.Int64,
    "phantom": pl.Boolean,
    "simulated": pl.Boolean,  # replayed from recorded curves
    "params": pl.String,  # JSON
    "folder": pl.String,  # relative to the study's
    "state": pl.String,  # complete, pruned, failed; unfinished where the run has not ended
    "reason": pl.String,
    "best": pl.Float64,
    "last": pl.Float64,
    "best_epoch": pl.Int64,
    "epochs": pl.Int64,
    "seconds": pl.Float64,  # spent in the steps of its epochs
    "ended": pl.Float64,  # seconds since 1970
    "device": pl.String,  # it was trained on: cuda or cpu; null, as the next two, where it was not recorded
    "workers": pl.Int64,
    "threads": pl.Int64,  # of each worker
}
TRIALS: dict[str, pl.DataType | type[pl.DataType]] = {
    "search": pl.String,  # Optuna's name of it: dataset/arm/rREPLICATE
    "dataset": pl.String,
    "arm": pl.String,
    "replicate": pl.Int64,
    "trial": pl.Int64,  # the number within the search; with dataset, arm and replicate the key to the trial's runs
    "state": pl.String,  # complete, pruned, failed, unfinished
    "value": pl.Float64,  # the objective; of a pruned trial the last one reported, null for the others
    "epochs": pl.Int64,  # what it took from the search's budget
    "modelled": pl.Boolean,  # suggested by TPE; False: a start or a random one
    "reason": pl.String,  # why it failed
    "started": pl.Datetime("us", "UTC"),
    "ended": pl.Datetime("us", "UTC"),
    "params": pl.String,  # JSON
}
PARAM = "param/"  # begins the column of each searched parameter
TEST = {
    "dataset": pl.String,
    "arm": pl.String,
    "replicate": pl.Int64,
    "seed_index": pl.Int64,
    "metric": pl.String,  # test/map ...
    "horizon": pl.Int64,  # months; null for all queries
    "value": pl.Float64,
}
PLACE: dict[str, type[pl.DataType]] = {
    "dataset": pl.String,
    "arm": pl.String,
    "replicate": pl.Int64,
    "seed_index": pl.Int64,
}
PER_QUERY: dict[str, type[pl.DataType]] = {**PLACE, **QUERIES}
SINGLE: dict[str, type[pl.DataType]] = {  # TEST and the fold
    **PLACE,
    "fold": pl.Int64,
    "metric": pl.String,
    "horizon": pl.Int64,
    "value": pl.Float64,
}
_NO_STEP = "time/images_per_s"


@dataclass(frozen=True)
class _Read:
    folder: RunFolder
    labels: dict[str, Any]  # LABELS
    epochs: list[dict[str, Any]]
    result: dict[str, Any]  # empty where the run has not ended

    @property
    def current(self) -> bool:
        return bool(self.labels["current"])


@dataclass(frozen=True, eq=False)
class Results:
    """What a study has found so far. Files are read once, when they are first asked for."""

    folder: Path
    plan: Plan

    @classmethod
    def open(cls, study_folder: Path | str) -> Results:
        folder = Path(study_folder)
        return cls(folder, read_plan(folder))

    @property
    def study(self) -> Study:
        return self.plan.study

    @cached_property
    def redeclared(self) -> list[dict[str, Any]]:
        """The changes of what was declared, oldest first: {"time", "before", "after", "test_opened"}."""
        return redeclarations(self.folder)

    @cached_property
    def summary(self) -> dict[str, Any]:
        path = self.folder / "summary.json"
        return dict(read_json(path)) if path.exists() else {}

    @cached_property
    def searches(self) -> dict[str, dict[str, Any]]:
        """By search, as ``marginlab.search.summarize`` has it."""
        return {**self.summary.get("searches", {}), **read_progress(study_database.of(self.folder), self.plan)}

    def winner(self, key: SearchKey) -> dict[str, Any] | None:
        """The best parameters of a search; where no record of it came along, what its confirmation trained, if that is one thing."""
        params = self.searches.get(str(key), {}).get("params")
        if params is None and str(key) not in self.searches:
            confirmed = {
                json.dumps(f.labels["params"], sort_keys=True)
                for f in self._folders
                if _search(f) == key and _confirms(f)
            }
            params = json.loads(confirmed.pop()) if len(confirmed) == 1 else None
        return params

    def phantom(self, dataset: str) -> bool:
        """Whether the images are synthetic: every number measured on them has to say so."""
        labelled = (f.labels.get("phantom") for f in self._folders if f.labels["dataset"] == dataset)
        return self.study.dataset(dataset).phantom is not None or dataset in self.plan.phantoms or any(labelled)

    def simulated(self, dataset: str) -> bool:
        """Whether recorded learning curves were replayed: every number has to say so."""
        return self.study.dataset(dataset).curves is not None

    def trials(self) -> pl.DataFrame:
        """One row per trial (:data:`TRIALS`), then a column ``param/PATH`` per searched parameter, null where an arm has none."""
        return self._trials

    @cached_property
    def _trials(self) -> pl.DataFrame:
        rows = read_trials(study_database.of(self.folder), self.plan)
        columns = {
            name: pl.Series(name, [row[name] for row in rows], dtype=kind)
            for name, kind in TRIALS.items()
            if name != "params"
        }
        columns["params"] = pl.Series(
            "params", [json.dumps(r["params"], sort_keys=True) for r in rows], dtype=pl.String
        )
        for path, kind in self._param_types().items():
            values = [row["params"].get(path) for row in rows]
            shown = [None if v is None else str(v) for v in values] if kind == pl.String else values
            columns[PARAM + path] = pl.Series(PARAM + path, shown, dtype=kind, strict=False)
        return pl.DataFrame(columns)

    def _param_types(self) -> dict[str, type[pl.DataType]]:
        """By what the arms' spaces allow, so that a study's columns do not depend on what it has tried so far."""
        allowed: dict[str, set[type]] = {}
        for arm in self.study.arms:
            for path, space in arm.space.items():
                allowed.setdefault(path, set()).update(type(v) for v in space.bounds() if v is not None)
        return {path: _column_type(kinds) for path, kinds in sorted(allowed.items())}

    def runs(self) -> pl.DataFrame:
        """One row per run (:data:`RUNS`)."""
        return pl.DataFrame([self._run_row(r) for r in self._read], schema=RUNS)

    def epochs(self) -> pl.DataFrame:
        """One row per run and epoch: :data:`LABELS`, the epoch, the time it ended and all metrics, null where not measured."""
        return self._epochs

    @cached_property
    def _epochs(self) -> pl.DataFrame:
        rows = [(r.labels, row) for r in self._read for row in r.epochs]
        names = sorted({name for _, row in rows for name in row} - {"epoch", "time"})
        columns: dict[str, pl.Series] = {
            n: pl.Series(n, [lab[n] for lab, _ in rows], dtype=t) for n, t in LABELS.items()
        }
        columns["epoch"] = pl.Series("epoch", [row["epoch"] for _, row in rows], dtype=pl.Int64)
        for name in ["time", *names]:
            columns[name] = pl.Series(name, [row.get(name) for _, row in rows], dtype=pl.Float64, strict=False)
        return pl.DataFrame(columns)

    def test(self, kind: str = "confirmation") -> pl.DataFrame:
        """Test figures by dataset, arm, replicate, seed, metric and horizon (:data:`TEST`); seeds that lack a fold are left out.

        Args:
            kind: of the runs: ``confirmation`` (the winners) or ``default`` (the arms' published defaults).
        """
        if kind not in self._tests:
            rows = [
                {"dataset": key.dataset, "arm": key.arm, "replicate": key.replicate, "seed_index": seed, **entry}
                for (key, seed), scores in self._scores(kind).items()
                for entry in long_scores(scores)
            ]
            self._tests[kind] = pl.DataFrame(rows, schema=TEST)
        return self._tests[kind]

    def queries(self, kind: str = "confirmation") -> pl.DataFrame:
        """Every test query's figures by dataset, arm, replicate and seed (:data:`PER_QUERY`); the seed's folds as one ensemble."""
        frames = [
            frame.select(
                pl.lit(key.dataset).alias("dataset"),
                pl.lit(key.arm).alias("arm"),
                pl.lit(key.replicate, dtype=pl.Int64).alias("replicate"),
                pl.lit(seed, dtype=pl.Int64).alias("seed_index"),
                pl.all(),
            )
            for (key, seed), frame in self.ensembles(kind).items()
        ]
        return pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema=PER_QUERY)

    def single_folds(self, kind: str = "confirmation") -> pl.DataFrame:
        """Test figures of each model on its own (:data:`SINGLE`). Models of one seed, or fold, are not independent."""
        rows = [
            {**{name: r.labels[name] for name in (*PLACE, "fold")}, **entry}
            for r in self._complete(kind)
            for entry in long_scores(r.result["test"])
        ]
        return pl.DataFrame(rows, schema=SINGLE)

    def embeddings(self, split: Split = "test", **where: Any) -> pl.DataFrame:
        """One row per run and image: the run's labels, then row (of the packed dataset), label, months, embedding.

        Args:
            where: values of columns of :meth:`runs`, such as ``kind="confirmation", seed_index=0``.
        """
        return embeddings(self, split, **where)

    def rankings(self, **where: Any) -> list[Ranked]:
        """The test split ranked by each seed, its fold models as one ensemble; ``where`` as in :meth:`embeddings`."""
        return rankings(self, **where)

    def missing(self) -> list[str]:
        """What a complete study would have and this one has not, in sentences."""
        out = []
        for key in self.plan.searches():
            found = self.searches.get(str(key))
            if found is None:
                out.append(f"The search {key} has left no record.")
            elif found.get("running", 0) or found["epochs"] + self.study.search.trial_epochs <= found["budget"]:
                out.append(f"The search {key} has spent {found['epochs']} of its {found['budget']} epochs.")
            if found is not None and found.get("params") is None:
                out.append(f"The search {key} has no winner: none of its trials was completed.")
            else:
                out += self._unconfirmed(key)
        return out + self._untrained()

    def _unconfirmed(self, key: SearchKey) -> list[str]:
        planned = self.study.confirmation.seeds * self.study.confirmation.folds
        runs = [r for r in self._read if r.current and _confirms(r.folder) and _search(r.folder) == key]
        ended = [r for r in runs if r.result.get("state") == "complete"]
        failed = [r for r in runs if r.result.get("state") == "failed"]
        out = [f"A confirmation run of {key} failed: {r.result['reason']}" for r in failed]
        if len(ended) + len(failed) < planned:
            out.append(
                f"Of the {planned} confirmation runs of {key}, {planned - len(ended) - len(failed)} have not ended."
            )
        if self.study.confirmation.folds > 1:
            without = sum(not (r.folder.path / "embeddings" / "test.parquet").exists() for r in ended)
            if without:
                out.append(
                    f"{without} confirmation runs of {key} have no test embeddings: their seeds cannot be scored."
                )
        return out

    def _untrained(self) -> list[str]:
        """What is missing of published defaults and incumbents."""
        out = []
        for kind, name in (("default", "of published defaults"), ("incumbent", "of incumbents")):
            results = [r.result for r in self._read if r.current and r.folder.labels["kind"] == kind]
            left = self.fresh.counts()[kind] - sum(bool(r) for r in results)
            out += [f"A run {name} failed: {r['reason']}" for r in results if r.get("state") == "failed"]
            if left > 0:
                out.append(f"Of the runs {name}, {left} have not ended.")
        return out

    @cached_property
    def fresh(self) -> Fresh:
        """What is trained on fresh seeds, given what the searches have found."""
        keys = self.plan.searches()
        return replace(Fresh.of(self.plan, self.searches), winners={key: self.winner(key) for key in keys})

    @cached_property
    def _folders(self) -> list[RunFolder]:
        return [RunFolder.open(p.parent) for p in sorted(self.folder.glob("runs/**/run.json"))]

    @cached_property
    def _read(self) -> list[_Read]:
        searches = set(self.plan.searches())
        read = []
        for f in self._folders:
            labels = {
                **{name: f.labels.get(name) for name in LABELS},
                "id": f.run.id,
                # More trials can change a search's winner: runs that confirmed the last one stay on the disk.
                "current": _search(f) in searches if f.labels["kind"] == "trial" else self.fresh.wants(f.labels),
            }
            read.append(_Read(f, labels, f.epochs(), f.result() or {}))
        return read

    def _run_row(self, r: _Read) -> dict[str, Any]:
        labels, result = r.folder.labels, r.result
        return {
            **r.labels,
            **{name: labels.get(name) for name in ("margin_policy", "seed", "phantom")},
            "simulated": bool(labels.get("simulated")),
            "params": json.dumps(labels.get("params", {}), sort_keys=True),
            "folder": str(r.folder.path.relative_to(self.folder)),
            "state": result.get("state", "unfinished"),
            **{name: result.get(name) for name in ("reason", "best", "last", "best_epoch")},
            "epochs": r.epochs[-1]["epoch"] if r.epochs else 0,
            "seconds": sum(v for row in r.epochs for v in step_seconds(row).values()),
            "ended": result.get("time"),
            **{name: result.get("trained_on", {}).get(name) for name in ("device", "workers", "threads")},
        }

    def _complete(self, kind: str) -> list[_Read]:
        """The complete runs that count. A published default that won its search has those that confirm it."""
        served = self.fresh.served if kind == "default" else ()
        complete = (r for r in self._read if r.current and r.result.get("state") == "complete")
        return [
            r for r in complete if r.labels["kind"] == kind or (_confirms(r.folder) and _search(r.folder) in served)
        ]

    def _seeds(self, kind: str) -> dict[tuple[SearchKey, int], list[_Read]]:
        """The runs of each seed that has a complete one on every fold."""
        by_seed: dict[tuple[SearchKey, int], list[_Read]] = {}
        for r in self._complete(kind):
            by_seed.setdefault((_search(r.folder), r.folder.labels["seed_index"]), []).append(r)
        return {place: runs for place, runs in by_seed.items() if len(runs) >= self.study.confirmation.folds}

    def ensembles(self, kind: str = "confirmation") -> dict[tuple[SearchKey, int], pl.DataFrame]:
        """What each test query scored (``scores.QUERIES``), by search and seed: the seed's fold models answer as one."""
        if kind not in self._ensembles:
            found = {
                place: scored(self.folder, [(r.folder, r.result) for r in runs])
                for place, runs in self._seeds(kind).items()
            }
            self._ensembles[kind] = {place: frame for place, frame in found.items() if frame is not None}
        return self._ensembles[kind]

    @cached_property
    def _tests(self) -> dict[str, pl.DataFrame]:
        """By kind of run, once asked for."""
        return {}

    @cached_property
    def _ensembles(self) -> dict[str, dict[tuple[SearchKey, int], pl.DataFrame]]:
        """By kind of run, once asked for."""
        return {}

    def _scores(self, kind: str) -> dict[tuple[SearchKey, int], dict[str, float]]:
        scores = {}
        for place, runs in self._seeds(kind).items():
            if len(runs) == 1:
                scores[place] = runs[0].result["test"]
            elif place in self.ensembles(kind):
                scores[place] = {f"test/{k}": v for k, v in query_means(self.ensembles(kind)[place]).items()}
        return scores


def step_seconds(row: dict[str, Any]) -> dict[str, float]:
    """Seconds by step of an epoch's row (or of a sum of such rows)."""
    steps = {k: v for k, v in row.items() if k.startswith("time/") and k.endswith("_s") and k != _NO_STEP}
    return {k.removeprefix("time/").removesuffix("_s"): v for k, v in steps.items() if v is not None}


def _column_type(kinds: set[type]) -> type[pl.DataType]:
    """The narrowest column that holds values of these types; text where they have nothing else in common."""
    for column, fits in ((pl.Boolean, {bool}), (pl.Int64, {int}), (pl.Float64, {int, float})):
        if kinds and kinds <= fits:
            return column
    return pl.String


def _search(f: RunFolder) -> SearchKey:
    return SearchKey(f.labels["dataset"], f.labels["arm"], f.labels["replicate"])


def _confirms(f: RunFolder) -> bool:
    return bool(f.labels["kind"] == "confirmation")
