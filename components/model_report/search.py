"""What a report says of the hyperparameter search: how sure its winner is, and which settings matter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import ensemble, inspection

from components.evaluator import intervals

# With fewer trials, the importance of settings would be chance.
_LEAST_FOR_IMPORTANCE = 8
_TREES, _REPEATS = 200, 20
_WIDE = 10.0  # largest value / smallest value of a setting from which on its axis is logarithmic


def describe(trials: Sequence[Mapping[str, Any]], search: Mapping[str, Any]) -> dict[str, Any]:
    """Describes a search for `metrics.json`.

    Args:
      trials: rows of `trials.parquet`, at least one with a score.
      search: what the table holds of the whole search: the keys of the `settings`, `algorithm`, `best`
        (number of the best trial), `val_images` and `seconds`.

    Returns:
      `search`, and: `interval`, Wilson's interval of the winner's validation accuracy; `within`, the number
      of other trials whose accuracy lies in it; `importance`, setting -> share of the differences in accuracy
      that goes with it, most important first, or None for fewer than eight trials or equal accuracies.
    """
    best = next(trial for trial in trials if trial["trial"] == search["best"])
    interval = intervals.proportion(round(best["score"] * search["val_images"]), search["val_images"])
    assert interval is not None
    others = [trial for trial in trials if trial is not best and trial["score"] is not None]
    return {
        **search,
        "best_score": best["score"],
        "interval": interval,
        "within": sum(trial["score"] >= interval[0] for trial in others),
        "importance": _importance(trials, search["settings"]),
    }


def _importance(trials: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> dict[str, float] | None:
    """Measures the permutation importance (Breiman, 2001) of each setting in a random forest."""
    scored = [trial for trial in trials if trial["score"] is not None]
    scores = np.array([trial["score"] for trial in scored])
    if len(scored) < _LEAST_FOR_IMPORTANCE or not np.ptp(scores):
        return None
    points = np.column_stack([position([trial[key] for trial in scored]) for key in settings])
    forest = ensemble.RandomForestRegressor(_TREES, random_state=0).fit(points, scores)
    measured = inspection.permutation_importance(forest, points, scores, n_repeats=_REPEATS, random_state=0)
    means = np.maximum(measured.importances_mean, 0)
    shares = means / (means.sum() or 1)
    return {settings[index]: float(shares[index]) for index in np.argsort(-shares, kind="stable")}


def is_logarithmic(values: Sequence[Any]) -> bool:
    """Returns whether the values of a setting are best shown on a logarithmic axis."""
    return are_numbers(values) and min(values) > 0 and max(values) / min(values) >= _WIDE


def are_numbers(values: Sequence[Any]) -> bool:
    """Returns whether all values of a setting are numbers; flags are not."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def text(value: Any) -> str:
    """Returns a value of a setting as it is written in presets."""
    return value if isinstance(value, str) else json.dumps(value)


def categories(values: Sequence[Any]) -> list[str]:
    """Lists the different values of a setting that has no numbers, in the order of their texts."""
    return sorted({text(value) for value in values})


def position(values: Sequence[Any]) -> np.ndarray:
    """Places the values of a setting on an axis.

    Args:
      values: one value for each trial.

    Returns:
      float [trials]: the numbers, or their logarithms, or the index in `categories`.
    """
    if not are_numbers(values):
        known = categories(values)
        return np.array([float(known.index(text(value))) for value in values])
    numbers = np.array(values, float)
    return np.log10(numbers) if is_logarithmic(values) else numbers
