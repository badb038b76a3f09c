"""The Tuner's `tuner_fn`: searches settings by validation accuracy."""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from keras_tuner.engine import base_tuner
from keras_tuner.engine.trial import TrialStatus
from tfx.components.tuner.component import TunerFnResult

from models import durations, step
from models.data.images import Images
from models.networks import registry
from models.search import oracles, plan, results
from models.training import loop
from models.training.history import Epoch
from models.training.run import BestWeights, Phase, Run, TrainingDivergedError
from settings import search as spaces
from settings.base import ConfigError
from settings.training import TrainingSettings

_LOG = logging.getLogger(__name__)

# Steps that are timed for the estimate of the search's duration, after the one that compiles the graph.
_TIMED_STEPS = 5
# Time to validate an image, as a share of the time to learn from it.
_VALIDATION_SHARE = 1 / 3


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Prepares the search; called by TFX's Tuner, which runs it and passes the best point to the Trainer.

    Args:
      fn_args: TFX's FnArgs; the search's state is kept in `working_dir` until it has ended, so that the next
        run goes on with the same search if this one is killed.

    Returns:
      The search, and the arguments for its `search` method.
    """
    arguments = step.read(fn_args)
    train_images, val_images = arguments.read_images(arguments.settings.tuner.max_train_images)
    search = create(
        arguments.settings,
        train_images,
        val_images,
        arguments.num_classes,
        fn_args.working_dir,
        # The settings and the digest of the code.
        {**fn_args.custom_config, "class_names": arguments.class_names},
    )
    return TunerFnResult(tuner=search, fit_kwargs={"verbose": 0})


def create(
    settings: TrainingSettings,
    train_images: Images,
    val_images: Images,
    num_classes: int,
    directory: str,
    parts: Mapping[str, Any] | None = None,
) -> Search:
    """Creates a search.

    Args:
      settings: `settings.tuner` has the space, the algorithm and the budget; the other sections say how each
        trial trains.
      train_images: the images that each trial trains on.
      val_images: the images that each trial's accuracy is measured on.
      num_classes: number of classes; labels are smaller.
      directory: where the search's state is kept, in a folder that is named after a digest of everything that
        determines the search. If it holds the state of the same search, that goes on.
      parts: what else determines the search, as JSON-serialisable values.

    Returns:
      The tuner; its `search()` runs all trials.

    Raises:
      ValueError: a split is empty, or has a label outside the classes.
      ConfigError: the space cannot be searched, or the budget is too small for one trial.
    """
    loop.check(train_images, val_images, num_classes)
    determined_by = {
        **(parts or {}),
        "training": settings.to_json(),
        "images": [images.checksum() for images in (train_images, val_images)],
    }
    digest = hashlib.sha256(json.dumps(determined_by, sort_keys=True).encode()).hexdigest()
    return Search(settings, train_images, val_images, num_classes, directory, digest[:16])


class PrunedError(Exception):
    """A trial is behind the median of the others."""


class Search(base_tuner.BaseTuner):
    """A search that shows its progress, survives a kill, and fails if no trial succeeds."""

    def __init__(
        self,
        settings: TrainingSettings,
        train_images: Images,
        val_images: Images,
        num_classes: int,
        directory: str,
        name: str,
    ) -> None:
        """Creates or reloads the search; the arguments are those of `create`, and the name of its folder."""
        self.settings = settings
        self.train_images = train_images
        self.val_images = val_images
        self._num_classes = num_classes
        self._features: tuple[str, loop.PhaseData] | None = None
        self._announced = False
        self._estimated: float | None = None
        config = settings.tuner
        try:
            dimensions = spaces.resolve(config.space, settings)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        super().__init__(
            oracle=oracles.create(
                config,
                dimensions,
                plan.epochs_of_trials(config, len(train_images), len(_phases(settings))),
                settings.seed,
                self._accepts,
            ),
            directory=directory,
            project_name=name,
        )

    # KerasTuner would write a second file, and find the state of a search by it.
    def _get_tuner_fname(self) -> str:
        return self.oracle.state_file

    def save(self) -> None:
        """Writes the search's state."""
        self.oracle.save()

    def reload(self) -> None:
        """Reads the search's state."""
        self.oracle.reload()

    def remove_state(self) -> None:
        """Removes the search's state once its results are written elsewhere."""
        tf.io.gfile.rmtree(self.project_dir)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs all trials.

        Raises:
          TrainingDivergedError: all trials failed.
        """
        if self.oracle.records:
            _LOG.info("the search resumes after trial %d/%d", len(self.oracle.records), len(self.oracle.plan))
            self._announced = True
        super().search(*fit_args, **fit_kwargs)
        trials = self.oracle.trials.values()
        # KerasTuner would return a failed trial as the best one, and the Trainer would use its values.
        if not any(trial.status == TrialStatus.COMPLETED for trial in trials):
            reasons = {record["reason"] for record in self.oracle.records.values()}
            self.remove_state()  # A resumed search would fail again.
            raise TrainingDivergedError(
                f"all {len(trials)} trials of the Tuner failed: {'; '.join(sorted(reasons))}"
            )
        best = self.oracle.get_best_trials()[0]
        _LOG.info("best of %d trials: %s, %s", len(trials), _describe(best), _score(best))

    def describe(self) -> dict[str, Any]:
        """Describes the search that has ended, as JSON-serialisable values.

        Returns:
          `algorithm`; `best`, the number of the best trial, from 1; `best_score`, its validation accuracy;
          `val_images`, the number of images that the accuracy was measured on; `seconds`, the duration, and
          `estimated_seconds`, what was announced, or None if the search was resumed.
        """
        best = self.oracle.get_best_trials()[0]
        return {
            "algorithm": self.settings.tuner.algorithm,
            "best": self.oracle.start_order.index(best.trial_id) + 1,
            "best_score": best.score,
            "val_images": len(self.val_images),
            "seconds": self.oracle.seconds,
            "estimated_seconds": self._estimated,
        }

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """Trains the network with a trial's values.

        Returns:
          The validation accuracy of the epoch with the lowest validation loss.

        Raises:
          FailedTrialError: the loss is not finite, or the memory is not enough.
          FatalError: any other error; it ends the search.
        """
        del fit_args, fit_kwargs
        planned, name = self.oracle.epochs_of(trial), self._name_of_trial()
        started = time.perf_counter()
        run: _TrialRun | None = None
        state, reason = results.COMPLETE, None
        _free_memory()
        try:
            settings = spaces.apply(self.settings, spaces.decode(trial.hyperparameters.values))
            loop.seed(settings)
            model = loop.build(settings, self.train_images, self._num_classes)
            run = _TrialRun(BestWeights(model))
            if self.settings.tuner.prune:
                run.on_epoch = lambda epochs: self._prune(epochs, planned)
            self._train(settings, model, name, planned, run, started)
        except PrunedError:
            state = results.PRUNED
        except (TrainingDivergedError, tf.errors.ResourceExhaustedError, MemoryError) as error:
            state, reason = results.FAILED, _summarize(error).removeprefix(name).strip()
            raise keras_tuner.errors.FailedTrialError(reason) from error
        except Exception as error:
            # KerasTuner would count any other error as a failed trial and try the next point.
            raise keras_tuner.errors.FatalError(f"a trial cannot be run: {error}") from error
        finally:
            epochs = run.history.epochs if run else []
            self._record = {
                "epochs": planned,
                "curve": [epoch.val_accuracy for epoch in epochs],
                "seconds": time.perf_counter() - started,
                "images": len(epochs) * len(self.train_images),
                "state": state,
                "reason": reason,
            }
        assert run is not None
        return {oracles.OBJECTIVE: run.history.best.val_accuracy}

    def _train(
        self,
        settings: TrainingSettings,
        model: keras.Model,
        name: str,
        epochs: int,
        run: Run,
        started: float,
    ) -> None:
        """Runs the phases of a trial."""
        for stage, phase in _phases(settings):
            stage.mark_trainable(model)
            data: loop.PhaseData = self.train_images, self.val_images
            if stage.on_features:
                data = self._compute_features(settings, model)
            loop.fit(
                model,
                *data,
                dataclasses.replace(phase, name=name, epochs=epochs),
                settings,
                run=run,
                callbacks=[]
                if self._announced
                else [_Timer(functools.partial(self._announce, phase, started))],
            )

    def _compute_features(self, settings: TrainingSettings, model: keras.Model) -> loop.PhaseData:
        """Returns the features of a frozen network; they are kept for trials with the same ones."""
        network = settings.model.network.model_dump_json(
            exclude={
                "dropout",
                *(name for name in type(settings.model.network).model_fields if "fine_tune" in name),
            }
        )
        key = f"{network} {settings.augmentation.model_dump_json()}"
        if self._features is None or self._features[0] != key:
            self._features = key, loop.features(settings, model, self.train_images, self.val_images)
        return self._features[1]

    def _prune(self, epochs: Sequence[Epoch], planned: int) -> None:
        """Ends a trial that is behind the median, unless its last epoch is done."""
        curve = [epoch.val_accuracy for epoch in epochs]
        if len(curve) < planned and self.oracle.is_behind(curve, planned):
            raise PrunedError

    def _accepts(self, values: Mapping[str, Any]) -> bool:
        """Returns whether the settings accept a trial's values, and its network the size of the images."""
        try:
            settings = spaces.apply(self.settings, values)
            settings.model.network.check_image_size(self.train_images.shape[:2], settings.trainer.crop_scales)
        except ValueError:
            return False
        return True

    def on_trial_end(self, trial: Any) -> None:
        """Records a trial, saves the search, and logs a line."""
        self.oracle.records[trial.trial_id] = self._record
        super().on_trial_end(trial)
        trial = self.oracle.get_trial(trial.trial_id)
        outcome = {
            results.COMPLETE: _score(trial),
            results.PRUNED: f"stopped after epoch {len(self._record['curve'])}, behind the median",
            results.FAILED: f"failed: {self._record['reason']}",
        }[self._record["state"]]
        done = f"trial {len(self.oracle.end_order)}/{len(self.oracle.plan)}"
        _LOG.info("%s: %s, %s%s", done, _describe(trial), outcome, self._standing())

    def _name_of_trial(self) -> str:
        """Names the running trial, with what the live view shows of the search."""
        return f"trial {len(self.oracle.records) + 1}/{len(self.oracle.plan)}{self._standing()}"

    def _standing(self) -> str:
        """Describes the best trial so far and the time that is left."""
        best = self.oracle.get_best_trials()
        parts = []
        if best and best[0].status == TrialStatus.COMPLETED:
            parts.append(f"best so far {best[0].score:.4f}")
        if left := self.oracle.seconds_left():
            parts.append(f"about {durations.describe(left)} left")
        return f" ({', '.join(parts)})" if parts else ""

    def _announce(self, phase: Phase, started: float, first_step: float, seconds_per_step: float) -> None:
        """Logs once what is to come.

        Args:
          phase: the phase that was timed.
          started: when the first trial began, by `time.perf_counter`.
          first_step: when it had done its first step.
          seconds_per_step: of a training step.
        """
        if self._announced:
            return
        self._announced = True
        per_image = seconds_per_step / min(phase.batch_size, len(self.train_images))
        epoch = per_image * (len(self.train_images) + _VALIDATION_SHARE * len(self.val_images))
        trials = self.oracle.plan
        epochs = sum(trials) * len(_phases(self.settings))
        seconds = self._estimated = len(trials) * (first_step - started) + epochs * epoch
        minutes = self.settings.tuner.budget.minutes
        limit = f" (at most {durations.describe(60 * minutes)})" if minutes and 60 * minutes < seconds else ""
        _LOG.info(
            "%d trials of up to %d epochs on %s images, about %s%s",
            len(trials),
            max(trials),
            f"{len(self.train_images):,}",
            durations.describe(seconds),
            limit,
        )


@dataclasses.dataclass
class _TrialRun(Run):
    """The training of a trial.

    Attributes:
      on_epoch: called with all epochs when one has ended.
    """

    on_epoch: Callable[[Sequence[Epoch]], None] | None = None

    def record(self, epochs: Sequence[Epoch]) -> None:
        super().record(epochs)
        if self.on_epoch:
            self.on_epoch(self.history.epochs)


class _Timer(keras.callbacks.Callback):
    """Times a few steps of a training, or those of its first epoch if it has fewer."""

    def __init__(self, report: Callable[[float, float], None]) -> None:
        """Creates the timer.

        Args:
          report: called once with the time after the first step, by `time.perf_counter`, and the seconds of a
            step.
        """
        super().__init__()
        self._report = report
        self._steps = 0
        self._first = self._last = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._steps > _TIMED_STEPS:
            return
        self._steps += 1
        self._last = time.perf_counter()
        self._first = self._first or self._last
        if self._steps == _TIMED_STEPS + 1:
            self._finish()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if 1 < self._steps <= _TIMED_STEPS:
            self._finish()

    def _finish(self) -> None:
        self._report(self._first, (self._last - self._first) / (self._steps - 1))
        self._steps = _TIMED_STEPS + 1


def _free_memory() -> None:
    """Frees the networks of earlier trials, which would stay in memory."""
    keras.backend.clear_session()
    gc.collect()


def _phases(settings: TrainingSettings) -> list[tuple[registry.Stage, Phase]]:
    """Returns the phases of a trial: the first one, unless settings of fine-tuning are searched."""
    phases = loop.phases(settings)
    return phases if any(".fine_tune_" in key for key in settings.tuner.space) else phases[:1]


def _describe(trial: Any) -> str:
    values = spaces.decode(trial.hyperparameters.values)
    return ", ".join(f"{key} {spaces.format_value(value)}" for key, value in values.items())


def _score(trial: Any) -> str:
    return f"{oracles.OBJECTIVE} {trial.score:.4f}" if trial.score is not None else "no score"


def _summarize(error: BaseException) -> str:
    """Returns the first line of an error's message; TensorFlow's messages have many."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
