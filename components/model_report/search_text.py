"""Words the part of a report on the hyperparameter search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluator import intervals
from models import durations
from settings.search import format_value

_NO_BREAK_SPACE = "\u00a0"


def describe_search(trials: Sequence[Mapping[str, Any]], search: Mapping[str, Any]) -> str:
    """Returns sentences on the winner of a hyperparameter search and on how sure it is.

    Args:
      trials: `trials` of `metrics.json`.
      search: `search` of `metrics.json`.
    """
    best = next(trial for trial in trials if trial["trial"] == search["best"])
    values = ", ".join(f"{key} {format_value(best[key])}" for key in search["settings"])
    low, high = (_percent(bound) for bound in search["interval"])
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
        f"the best validation accuracy, {_percent(search['best_score'])}, was reached with {values}. Its "
        f"{100 * intervals.LEVEL:.0f}{_NO_BREAK_SPACE}% interval is {low} to {high}, from "
        f"{search['val_images']:,} images; {others} in it."
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}{_NO_BREAK_SPACE}%"
