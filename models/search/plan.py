"""What a search will do: how long each trial trains, within the budget."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable

import keras_tuner

from settings.base import ConfigError
from settings.search import HYPERBAND_FACTOR
from settings.training import TunerConfig


def epochs_of_trials(config: TunerConfig, train_images: int, phases: int = 1) -> list[int]:
    """Returns the number of epochs of each trial, in the order in which they run.

    Args:
      config: the algorithm, the number of trials, their epochs and the budget.
      train_images: number of images that a trial trains on.
      phases: number of phases of a trial, each of which has the epochs.

    Returns:
      As many numbers as trials fit into the budget of trials, epochs and images. That of minutes is not known
      before.

    Raises:
      ConfigError: the budget is too small for one trial.
    """
    wanted = _hyperband(config) if config.algorithm == "hyperband" else [config.epochs] * config.trials
    budget = config.budget
    limit = min(budget.epochs or math.inf, (budget.images or math.inf) / train_images) / phases
    totals = itertools.accumulate(wanted)
    planned = [epochs for epochs, total in zip(wanted, totals, strict=True) if total <= limit]
    if not planned:
        raise ConfigError(
            f"tuner.budget: the first trial trains for {wanted[0]} epochs on {train_images:,} images, more "
            "than the budget allows. Set larger tuner.budget.epochs and tuner.budget.images, or fewer "
            "tuner.epochs or tuner.max_train_images"
        )
    return planned


def duration(seconds: Iterable[float], processes: int) -> float:
    """Returns the seconds that trials take together.

    Args:
      seconds: duration of each trial, in the order in which they begin.
      processes: number of trials that run at the same time.
    """
    ends = [0.0] * processes
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


def _hyperband(config: TunerConfig) -> list[int]:
    """Lists the epochs of Hyperband's trials: brackets of rounds, each with fewer and longer trials."""
    oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=config.epochs, factor=HYPERBAND_FACTOR)
    one_iteration = [
        oracle._get_epochs(bracket, round_)
        for bracket in reversed(range(oracle._get_num_brackets()))
        for round_ in range(bracket + 1)
        for _ in range(oracle._get_size(bracket, round_))
    ]
    return list(itertools.islice(itertools.cycle(one_iteration), config.trials))
