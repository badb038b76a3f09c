"""The Tuner's `tuner_fn`: searches learning rate and batch size by validation accuracy."""

from __future__ import annotations

import logging
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from scipy.stats import qmc
from tfx.components.tuner.component import TunerFnResult

from models import step
from models.data.images import Images
from models.training import loop
from models.training.run import BestWeights, Phase, Run, TrainingDivergedError
from settings.training import BATCH_SIZE, LEARNING_RATE, TrainingSettings, TunerConfig

_LOG = logging.getLogger(__name__)

OBJECTIVE = "val_accuracy"


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Prepares the search; called by TFX's Tuner, which runs it and passes the best point to the Trainer.

    Args:
      fn_args: TFX's FnArgs; KerasTuner stores the search's state in `working_dir`.

    Returns:
      The search, and the arguments for its `search` method.
    """
    arguments = step.read(fn_args)
    train_images, val_images = arguments.read_images(arguments.settings.tuner.max_train_images)
    search = create(arguments.settings, train_images, val_images, arguments.num_classes, fn_args.working_dir)
    return TunerFnResult(tuner=search, fit_kwargs={"verbose": 0})


def create(
    settings: TrainingSettings,
    train_images: Images,
    val_images: Images,
    num_classes: int,
    directory: str,
) -> Search:
    """Creates the search over learning rate and batch size.

    Args:
      settings: `settings.tuner` has the ranges to search and the number of trials; the other sections say
        how each trial trains.
      train_images: the images that each trial trains on.
      val_images: the images that each trial's accuracy is measured on.
      num_classes: number of classes; labels are smaller.
      directory: where KerasTuner stores the search's state.

    Returns:
      The tuner; its `search()` runs all trials.

    Raises:
      ValueError: a split is empty, or has a label outside the classes.
    """
    loop.check(train_images, val_images, num_classes)
    points = spread(settings.tuner, settings.seed)
    return Search(
        oracle=_FixedPoints(points),
        hypermodel=_Trial(settings, train_images, val_images, num_classes),
        directory=directory,
        project_name="tuner",
    )


def spread(config: TunerConfig, seed: int) -> list[dict[str, Any]]:
    """Spreads the trials evenly over learning rates (logarithmically) and batch sizes.

    The points form a Latin hypercube (McKay et al., 1979). With few trials, independent random points would
    leave gaps, and Bayesian optimisation would spend as many trials on its random start (KerasTuner's default
    for two dimensions is six).

    Args:
      config: the ranges and the number of trials.
      seed: seed of the random points; the same seed gives the same points.

    Returns:
      Up to `config.trials` different points {"learning_rate": ..., "batch_size": ...}, in random order.
    """
    fractions = qmc.LatinHypercube(d=2, seed=seed).random(config.trials)
    low, high = config.learning_rate.min, config.learning_rate.max
    rates = np.clip(low * (high / low) ** fractions[:, 0], low, high)
    sizes = np.array(config.batch_sizes)[(fractions[:, 1] * len(config.batch_sizes)).astype(int)]
    points = dict.fromkeys(zip(rates.tolist(), sizes.tolist(), strict=True))
    return [{LEARNING_RATE: rate, BATCH_SIZE: size} for rate, size in points]


class Search(keras_tuner.Tuner):
    """A search that logs a line for each trial, and fails if no trial succeeds."""

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs all trials.

        Raises:
          TrainingDivergedError: all trials failed.
        """
        super().search(*fit_args, **fit_kwargs)
        trials = self.oracle.trials.values()
        # KerasTuner would return a failed trial as the best one, and the Trainer would use its values.
        if not any(trial.status == "COMPLETED" for trial in trials):
            # A trial's message is a traceback, whose last line is the error.
            reasons = {str(trial.message).strip().splitlines()[-1] for trial in trials}
            raise TrainingDivergedError(
                f"all {len(trials)} trials of the Tuner failed: {'; '.join(sorted(reasons))}"
            )

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        trial = self.oracle.get_trial(trial.trial_id)
        outcome = f"{OBJECTIVE} {trial.score:.4f}" if trial.status == "COMPLETED" else "failed"
        _LOG.info(
            "trial %d/%d: %s, %s",
            len(self.oracle.end_order),
            self.oracle.max_trials,
            _describe(trial),
            outcome,
        )


class _FixedPoints(keras_tuner.Oracle):
    """Tries given points in order."""

    def __init__(self, points: list[dict[str, Any]]) -> None:
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=len(points),
            max_consecutive_failed_trials=len(points) + 1,  # never reached: `Search` raises a clearer error
        )
        self._points = points

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        return {"status": "RUNNING", "values": self._points[int(trial_id)]}


class _Trial(keras_tuner.HyperModel):
    """Trains the configured network once, with a trial's learning rate and batch size."""

    def __init__(
        self,
        settings: TrainingSettings,
        train_images: Images,
        val_images: Images,
        num_classes: int,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._train_images = train_images
        self._val_images = val_images
        self._num_classes = num_classes
        self._data: loop.PhaseData | None = None

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        config = self._settings.tuner
        rates, sizes = config.learning_rate, config.batch_sizes
        # A range of one value is registered as fixed, so that the Trainer can tell that it was not tuned.
        if rates.min == rates.max:
            hp.Fixed(LEARNING_RATE, rates.min)
        else:
            hp.Float(LEARNING_RATE, rates.min, rates.max, sampling="log")
        if len(sizes) == 1:
            hp.Fixed(BATCH_SIZE, sizes[0])
        else:
            hp.Choice(BATCH_SIZE, list(sizes))
        loop.seed(self._settings)
        return loop.build(self._settings, self._train_images, self._num_classes)

    def fit(self, hp: keras_tuner.HyperParameters, model: keras.Model, **kwargs: Any) -> dict[str, float]:
        """Trains without KerasTuner's checkpoints: the search needs the trial's accuracy, not its model."""
        config = self._settings.tuner
        if self._data is None:
            # The features of a frozen network are the same in each trial, so they are computed once.
            self._data = loop.first_phase_data(self._settings, model, self._train_images, self._val_images)
        run = Run(BestWeights(model))
        try:
            loop.fit(
                model,
                *self._data,
                Phase("trial", config.epochs, hp.get(LEARNING_RATE), hp.get(BATCH_SIZE)),
                self._settings,
                run=run,
            )
        except (TrainingDivergedError, tf.errors.ResourceExhaustedError) as error:
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            # KerasTuner would count any other error as a failed trial and try the next point.
            raise keras_tuner.errors.FatalError(f"a trial cannot be run: {error}") from error
        return {OBJECTIVE: run.history.best.val_accuracy}


def _describe(trial: Any) -> str:
    values = trial.hyperparameters.values
    return f"learning rate {values[LEARNING_RATE]:.3g}, batch size {values[BATCH_SIZE]}"
