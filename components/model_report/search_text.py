"""Words the part of a report on the hyperparameter search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.model_report.percentages import LEVEL, percent
from models import durations
from settings.search import format_value


def describe_search(trials: Sequence[Mapping[str, Any]], search: Mapping[str, Any]) -> str:
    """Returns sentences on the winner of a hyperparameter search and on how sure it is.

    Args:
      trials: `trials` of `metrics.json`.
      search: `search` of `metrics.json`.
    """
    best = next(trial for trial in trials if trial["trial"] == search["best"])
    values = ", ".join(f"{key} {format_value(best[key])}" for key in search["settings"])
    low, high = (percent(bound) for bound in search["interval"])
    failed = sum(trial["score"] is None for trial in trials)
    stopped = sum(trial["state"] == "pruned" for trial in trials)
    rest = [f"{amount} {what}" for amount, what in ((stopped, "stopped early"), (failed, "failed")) if amount]
    counted = f"{len(trials)} ({', '.join(rest)})" if rest else f"{len(trials)}"
    algorithm = search["algorithm"].replace("_", " ")
    others = {0: "no other trial lies", 1: "one other trial lies"}.get(
        search["within"], f"{search['within']} other trials lie"
    )
    return (
        f"Trials of the Tuner: {counted}, by {algorithm} search in {durations.describe(search['seconds'])}; "
        f"the best validation accuracy, {percent(search['best_score'])}, was reached with {values}. Its "
        f"{LEVEL} interval is {low} to {high}, from {search['val_images']:,} images; {others} in it."
    )
