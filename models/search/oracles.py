"""The algorithms of a search as KerasTuner's oracles, with what KerasTuner's own ones get wrong put right."""

from __future__ import annotations

import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.engine import hyperparameters as kinds
from keras_tuner.engine.trial import Trial, TrialStatus
from scipy import stats
from scipy.stats import qmc
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from models.search import plan as schedule
from models.search import results, space
from models.training import atomic_write
from models.training.checkpoint import CheckpointError
from settings import search
from settings.search import HYPERBAND_FACTOR, Dimension
from settings.training import TunerConfig

OBJECTIVE = "val_accuracy"

_STATE_FILE = "search.json"
_MOST_REFUSED = 1000  # points in a row that the settings refuse, before the space counts as exhausted
_MOST_HYPERCUBES = 50
_CANDIDATES = 2000  # points among which Bayesian optimisation looks for the most promising one
# Shortest and longest distance, in parts of the range of a setting, over which accuracies are alike.
_LENGTHS = (0.1, 1.0)
# Finished trials that the median needs. Optuna's MedianPruner waits for five; searches here have few trials.
_LEAST_FOR_MEDIAN = 3


class SearchOracle(keras_tuner.Oracle):
    """What all algorithms share: the budget, records of the trials, and a state that survives a kill.

    KerasTuner writes its state to several files, one after the other and in place. A process that is killed
    between or within these writes leaves a search that cannot be loaded, or that repeats a finished trial.
    Here, the whole state is one file that is replaced atomically.

    Attributes:
      records: trial's id -> what is known of it: `epochs` (planned), `curve` (validation accuracy after each
        epoch), `seconds`, `images` (training images seen), `state`, `reason` of a failure, and `score`.
      plan: epochs of each trial.
      parallel: number of trials that run at the same time.
    """

    def prepare(
        self,
        plan: Sequence[int],
        config: TunerConfig,
        accepts: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        """Sets what KerasTuner's constructors do not take.

        Args:
          plan: epochs of each trial.
          config: the budget of time, and how many trials run at the same time.
          accepts: whether the settings accept a trial's values.
        """
        self.parallel = config.parallel
        self.plan = plan
        # KerasTuner's Hyperband has no limit of its own, and TFX cannot list the trials of a search without
        # one.
        self.max_trials = len(plan)
        self.records: dict[str, dict[str, Any]] = {}
        self._minutes = config.budget.minutes or math.inf
        self._accepts_values = accepts
        self._seconds_before = 0.0
        self._started = time.monotonic()

    def accepts(self, values: Mapping[str, Any]) -> bool:
        """Returns whether the settings accept the values of a trial."""
        return self._accepts_values(search.decode(values))

    @property
    def seconds(self) -> float:
        """Duration of the search so far, in seconds, including processes that were killed."""
        return self._seconds_before + time.monotonic() - self._started

    def seconds_left(self) -> float | None:
        """Estimates the remaining seconds from the trials so far; None if there are none."""
        rate = self._seconds_per_epoch()
        if rate is None:
            return None
        # The trials that run have no record yet, and count in full.
        left = schedule.duration(
            (rate * epochs for epochs in self.plan[len(self.records) :]), processes=self.parallel
        )
        return max(0.0, min(left, 60 * self._minutes - self.seconds))

    def _seconds_per_epoch(self) -> float | None:
        trained = [record for record in self.records.values() if record["curve"]]
        # A trial of two phases has more epochs than are planned for each.
        epochs = sum(min(len(record["curve"]), record["epochs"]) for record in trained)
        return sum(record["seconds"] for record in trained) / epochs if epochs else None

    def waits_for_others(self) -> bool:
        """Returns whether the next trial may begin only when all that run have ended.

        Otherwise its values would depend on which of them is faster. Trials that were running when the search
        was killed have their values already.
        """
        return bool(self.ongoing_trials) and not self._retry_queue and self._depends_on_others()

    def _depends_on_others(self) -> bool:
        """Returns whether the values of the next trial depend on the results of those that run."""
        return False

    def create_trial(self, tuner_id: str) -> Trial:
        """Returns the next trial; with the status STOPPED if no trial ends within the budget of time."""
        rate = self._seconds_per_epoch()
        # Epochs of the next trial; 0 after the last one.
        planned = sum(self.plan[len(self.trials) - len(self._retry_queue) :][:1])
        if rate is not None and self.seconds + rate * planned > 60 * self._minutes:
            return Trial(self.get_space(), status=TrialStatus.STOPPED)
        return super().create_trial(tuner_id)

    def epochs_of(self, trial: Trial) -> int:
        """Returns the planned epochs of a trial."""
        return trial.hyperparameters.values.get("tuner/epochs", self.plan[0])

    def number_of(self, trial: Trial) -> int:
        """Returns the number of a trial, from 1, in the order in which trials begin."""
        return self.start_order.index(trial.trial_id) + 1

    def is_behind(self, curve: Sequence[float], planned: int) -> bool:
        """Returns whether a trial's accuracy is below the median of earlier trials after the same epoch.

        This is the median stopping rule of Golovin et al., "Google Vizier" (2017). Only trials with as many
        planned epochs are compared, because the schedule of the learning rate depends on their number.

        Args:
          curve: validation accuracy after each epoch so far.
          planned: planned epochs of the trial.
        """
        reached = [
            record["curve"][len(curve) - 1]
            for record in self.records.values()
            if record["epochs"] == planned and len(record["curve"]) >= len(curve)
        ]
        return len(reached) >= _LEAST_FOR_MEDIAN and curve[-1] < statistics.median(reached)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Returns the best trials, those that trained longest first, then those that did not complete.

        KerasTuner compares trials of different lengths with each other, so that a short one could win by
        chance.
        """

        def rank(trial: Trial) -> tuple[int, float]:
            record = self.records[trial.trial_id]
            trained = len(record["curve"]) if record["state"] == results.PRUNED else record["epochs"]
            return trained, trial.score

        completed = [trial for trial in self.trials.values() if trial.status == TrialStatus.COMPLETED]
        others = [trial for trial in self.trials.values() if trial.status != TrialStatus.COMPLETED]
        return [*sorted(completed, key=rank, reverse=True), *others][:num_trials]

    def rows(self) -> list[dict[str, Any]]:
        """Lists the trials of a search that have ended, in their order.

        Returns:
          For each trial the values of the settings by their dotted keys, and `trial` (from 1), `state`
          (`complete`, `pruned` or `failed`), `score` (validation accuracy, 0 to 1, of the epoch with the
          lowest validation loss; None if it failed), `epochs` and `images` (trained), `seconds`, `reason` (of
          a failure, or None), and `curve` (validation accuracy after each epoch).
        """
        ended = []
        for trial_id in self.end_order:
            trial, record = self.trials[trial_id], self.records[trial_id]
            ended.append(
                {
                    **search.decode(trial.hyperparameters.values),
                    "trial": self.number_of(trial),
                    "state": record["state"],
                    "score": None if record["state"] == results.FAILED else trial.score,
                    "epochs": len(record["curve"]),
                    "images": record["images"],
                    "seconds": record["seconds"],
                    "reason": record["reason"],
                    "curve": record["curve"],
                }
            )
        return sorted(ended, key=lambda row: row["trial"])

    def _random_values(self) -> dict[str, Any] | None:
        """Draws values that the settings accept and that no trial has had; None if there seem to be none."""
        for _ in range(_MOST_REFUSED):
            values = super()._random_values()
            if values is None or self.accepts(values):
                return values
        return None

    @property
    def even_trials(self) -> int:
        """The number of trials that are spread evenly over the space."""
        return self.max_trials

    def even_point(self) -> dict[str, Any]:
        """Returns the next point of Latin hypercubes (McKay et al., 1979), in KerasTuner's response.

        With few trials, independent random points would leave gaps. A hypercube has `even_trials` points.
        Those of further ones take the place of points that the settings refuse, or that were tried.
        """
        searched = [hp for hp in self.hyperparameters.space if not isinstance(hp, kinds.Fixed)]
        for batch in range(_MOST_HYPERCUBES):
            hypercube = qmc.LatinHypercube(d=max(1, len(searched)), seed=self.seed - 1 + batch)
            for fractions in hypercube.random(self.even_trials):
                values = {hp.name: hp.default for hp in self.hyperparameters.space}
                for hp, fraction in zip(searched, fractions, strict=False):
                    values[hp.name] = hp.prob_to_value(float(fraction))
                if not self._duplicate(values) and self.accepts(values):
                    return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED, "values": None}

    def get_state(self) -> dict[str, Any]:
        state = super().get_state()
        # KerasTuner saves a finished trial as an ongoing one, which a resumed search would repeat.
        ongoing = {
            tuner: trial.trial_id
            for tuner, trial in self.ongoing_trials.items()
            if trial.status == TrialStatus.RUNNING
        }
        return {
            **state,
            "ongoing_trials": ongoing,
            "records": self.records,
            "seconds": self.seconds,
            "trials": [trial.get_state() for trial in self.trials.values()],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.trials = {each["trial_id"]: Trial.from_state(each) for each in state["trials"]}
        super().set_state(state)
        self.records, self._seconds_before = state["records"], state["seconds"]

    @property
    def state_file(self) -> str:
        """Path of the file with the state of the search."""
        return self._get_oracle_fname()

    def _get_oracle_fname(self) -> str:
        return f"{self._project_dir}/{_STATE_FILE}"

    def _save_trial(self, trial: Trial) -> None:
        """Does nothing: the trials are part of the state."""

    def save(self) -> None:
        """Writes the state."""
        atomic_write.replace(self.state_file, json.dumps(self.get_state()))

    def reload(self) -> None:
        """Reads the state; the trials that were running begin anew, in their order.

        Raises:
          CheckpointError: the file is damaged.
        """
        try:
            with tf.io.gfile.GFile(self.state_file) as file:
                state = json.load(file)
            self.set_state(state)
        except Exception as error:  # KerasTuner does not document what foreign values make it raise
            raise CheckpointError(
                f"cannot resume the search from {self.state_file}, which is not whole or not the state of a "
                f"search ({error!r}). Delete this file and run the same command again; the search then "
                "starts from the beginning"
            ) from error
        # KerasTuner takes the last one first.
        waiting = {*self._retry_queue, *state["ongoing_trials"].values()}
        self._retry_queue: list[str] = sorted(waiting, key=self.start_order.index, reverse=True)
        self.ongoing_trials: dict[str, Trial] = {}


class SpaceFillingOracle(SearchOracle):
    """Spreads all trials evenly over the space."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        return self.even_point()


class RandomOracle(SearchOracle, keras_tuner.oracles.RandomSearchOracle):
    """Draws each trial independently."""


class BayesianOracle(SearchOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Chooses the point with the highest expected improvement under a Gaussian process.

    KerasTuner's oracle proposes points again that were tried, or that failed; restarts its random numbers
    when it is reloaded; and takes differences of a hundredth of a percent for real, so that the noise of the
    training looks like structure. Its kernel has one length for all dimensions, of any size: if the first few
    accuracies say little, the length becomes so large that the next points stay close to the first ones. Here
    each dimension has a length of its own, of at most the whole range. The points are ranked among random
    candidates instead of climbing to a single one, because the best may be refused; failed trials count as
    bad as the worst one.

    With several trials at a time, their points are chosen together, as many as there are processes. The next
    ones wait until all of them have ended. Meanwhile, those that run count as bad as the worst trial, so that
    the points of a batch differ (the "constant liar" of Ginsbourger et al., 2010).
    """

    @property
    def even_trials(self) -> int:
        """The number of trials at the beginning that are spread evenly, a multiple of `parallel`."""
        # KerasTuner's default, three for each dimension, is more than most searches have trials.
        wanted = max(3, min(2 * len(self._nonfixed_space()), self.max_trials // 2))
        # The next ones wait for all of these; a rest would leave processes idle.
        return math.ceil(wanted / self.parallel) * self.parallel

    def _depends_on_others(self) -> bool:
        later = len(self.trials) - self.even_trials
        return later >= 0 and later % self.parallel == 0

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        completed = [trial for trial in self.trials.values() if trial.status == TrialStatus.COMPLETED]
        dimensions = len(self._nonfixed_space())
        if not completed or len(self.trials) < self.even_trials:
            return self.even_point()
        random = np.random.default_rng([self.seed, len(self.trials)])
        drawn = random.uniform(size=(_CANDIDATES, dimensions))
        candidates = [self._vector_to_values(vector) for vector in drawn]
        # Values from a list and whole numbers are not where the vector was.
        improvement = self._expected_improvement(np.array([self._vectorize(each) for each in candidates]))
        for index in np.argsort(-improvement, kind="stable"):
            if not self._duplicate(candidates[index]) and self.accepts(candidates[index]):
                return {"status": TrialStatus.RUNNING, "values": candidates[index]}
        return {"status": TrialStatus.STOPPED, "values": None}

    def _vectorize(self, values: Mapping[str, Any]) -> list[float]:
        """Returns the point of the unit cube that values stand for."""
        return [hp.value_to_prob(values[hp.name]) for hp in self._nonfixed_space()]

    def _expected_improvement(self, candidates: np.ndarray) -> np.ndarray:
        """Returns by how much each point is expected to surpass the best tried one (Jones et al., 1998).

        Args:
          candidates: points of the unit cube, [count, dimensions].

        Returns:
          Improvements of the accuracy, [count]. Because the accuracies are noisy, the best tried point is the
          one with the highest accuracy under the Gaussian process.
        """
        points, scores = self._vectorize_trials()
        matern = kernels.Matern(np.full(points.shape[1], 0.5), _LENGTHS, nu=2.5)
        process = GaussianProcessRegressor(
            kernel=matern + kernels.WhiteKernel(0.1, (1e-4, 1.0)),
            n_restarts_optimizer=5,
            normalize_y=True,
            random_state=self.seed,
        )
        with warnings.catch_warnings():
            # A length that reaches its bound is as intended.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(points, scores)
        mean, deviation = process.predict(candidates, return_std=True)
        gain = mean - process.predict(points).max()
        normalized = gain / deviation
        return gain * stats.norm.cdf(normalized) + deviation * stats.norm.pdf(normalized)

    def _vectorize_trials(self) -> tuple[np.ndarray, np.ndarray]:
        scores = {t.trial_id: t.score for t in self.trials.values() if t.status == TrialStatus.COMPLETED}
        worst = min(scores.values())
        trials = self.trials.values()
        points = [self._vectorize(trial.hyperparameters.values) for trial in trials]
        return np.array(points), np.array([scores.get(trial.trial_id, worst) for trial in trials])


class HyperbandOracle(SearchOracle, keras_tuner.oracles.HyperbandOracle):
    """Trains many trials for a few epochs, and the best third of them for three times as long, and so on.

    In KerasTuner's oracle, one failed trial keeps a round from ever having enough results, so that its best
    trials are never trained longer. Here a failed trial counts as the worst of its round. And while trials of
    a round run, KerasTuner's oracle begins another bracket. Here the next round waits for them, so that the
    search is the same with any number of trials at a time.
    """

    def _depends_on_others(self) -> bool:
        # All trials of a round have as many epochs, and those of the next round of the bracket have more.
        following = self.plan[len(self.trials) :][:1]
        return any([self.epochs_of(trial)] != following for trial in self.ongoing_trials.values())

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        failed = [trial for trial in self.trials.values() if trial.status == TrialStatus.FAILED]
        for trial in failed:
            trial.status, trial.score = TrialStatus.COMPLETED, -math.inf
        try:
            return super().populate_space(trial_id)
        finally:
            for trial in failed:
                trial.status, trial.score = TrialStatus.FAILED, None


def create(
    config: TunerConfig,
    dimensions: Sequence[Dimension],
    plan: Sequence[int],
    seed: int,
    accepts: Callable[[Mapping[str, Any]], bool],
) -> SearchOracle:
    """Creates the oracle of the configured algorithm.

    Args:
      config: the algorithm and the budget.
      dimensions: the space.
      plan: epochs of each trial.
      seed: seed of the random numbers; the same seed gives the same points.
      accepts: whether the settings accept the values of a trial, by their dotted keys.
    """
    common = {
        "objective": keras_tuner.Objective(OBJECTIVE, "max"),
        "hyperparameters": space.hyperparameters(dimensions),
        "allow_new_entries": False,
        "seed": seed + 1,  # KerasTuner replaces a seed of 0 by a random one.
        "max_consecutive_failed_trials": len(plan) + 1,  # never reached: the Tuner raises a clearer error
    }
    oracle: SearchOracle
    if config.algorithm == "hyperband":
        oracle = HyperbandOracle(
            max_epochs=config.epochs, factor=HYPERBAND_FACTOR, hyperband_iterations=None, **common
        )
    elif config.algorithm == "bayesian":
        oracle = BayesianOracle(**common)
    else:
        oracle = {"space_filling": SpaceFillingOracle, "random": RandomOracle}[config.algorithm](**common)
    oracle.prepare(plan, config, accepts)
    return oracle
