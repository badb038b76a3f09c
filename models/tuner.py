"""The Tuner's `tuner_fn`: searches settings by validation accuracy."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine import base_tuner
from keras_tuner.engine.trial import TrialStatus
from tfx.components.tuner.component import TunerFnResult

from models import durations, step
from models.data.images import Images
from models.search import oracles, parallel, plan, results, trials
from models.training import loop
from models.training.run import TrainingDivergedError
from settings import search as spaces
from settings.base import ConfigError
from settings.training import TrainingSettings

_LOG = logging.getLogger(__name__)

# Time to validate an image, as a share of the time to learn from it.
_VALIDATION_SHARE = 1 / 3
_FAILURES_NAMED = 3  # failed trials in the message if all have failed


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
      ConfigError: the space cannot be searched, the budget is too small for one trial, or this machine cannot
        run as many trials at a time.
    """
    loop.check(train_images, val_images, num_classes)
    settings.tuner.check_parallel(len(_cores()), bool(tf.config.list_physical_devices("GPU")))
    determined_by = {
        **(parts or {}),
        "training": settings.to_json(),
        "images": [images.checksum() for images in (train_images, val_images)],
    }
    digest = hashlib.sha256(json.dumps(determined_by, sort_keys=True).encode()).hexdigest()
    return Search(settings, train_images, val_images, num_classes, directory, digest[:16])


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
                self._plan(dimensions),
                settings.seed,
                self._accepts,
            ),
            directory=directory,
            project_name=name,
        )

    def _plan(self, dimensions: Sequence[spaces.Dimension]) -> list[int]:
        """Returns the number of epochs of each trial: no more trials than the space has points."""
        config = self.settings.tuner
        planned = plan.epochs_of_trials(config, len(self.train_images), len(trials.phases(self.settings)))
        points = config.limiting_points(dimensions, len(planned))
        return planned if points is None else planned[: sum(map(self._accepts, points))]

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
            _LOG.info(
                "the search resumes with %d of %d trials done",
                len(self.oracle.records),
                len(self.oracle.plan),
            )
            self._announced = True
        if self.oracle.parallel > 1:
            self._search_in_processes()
        else:
            super().search(*fit_args, **fit_kwargs)
        ended = self.oracle.trials.values()
        # KerasTuner would return a failed trial as the best one, and the Trainer would use its values.
        if not any(trial.status == TrialStatus.COMPLETED for trial in ended):
            self.remove_state()  # A resumed search would fail again.
            raise TrainingDivergedError(_describe_failures(self.oracle.rows()))
        best = self.oracle.get_best_trials()[0]
        _LOG.info("best of %s: %s, %s", spaces.count(len(ended), "trial"), _describe(best), _score(best))

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
            "best": self.oracle.number_of(best),
            "best_score": best.score,
            "val_images": len(self.val_images),
            "seconds": self.oracle.seconds,
            "estimated_seconds": self._estimated,
        }

    @functools.cached_property
    def _trials(self) -> trials.Trials:
        """The trials of this process."""
        return trials.Trials(self.settings, self.train_images, self.val_images, self._num_classes)

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """Trains the network with a trial's values.

        Returns:
          The validation accuracy of the epoch with the lowest validation loss.

        Raises:
          FailedTrialError: the loss is not finite, or the memory is not enough.
          FatalError: any other error; it ends the search.
        """
        del fit_args, fit_kwargs
        planned = self.oracle.epochs_of(trial)
        try:
            record = self._trials.run(
                spaces.decode(trial.hyperparameters.values),
                planned,
                self._name(trial) + self._standing(),
                on_timed=None if self._announced else self._announce,
                on_epoch=functools.partial(self._prune, planned) if self.settings.tuner.prune else None,
            )
        except Exception as error:
            # KerasTuner would count any other error as a failed trial and try the next point.
            raise keras_tuner.errors.FatalError(f"a trial cannot be run: {error}") from error
        self.oracle.records[trial.trial_id] = record
        if record["state"] == results.FAILED:
            raise keras_tuner.errors.FailedTrialError(record["reason"])
        return {oracles.OBJECTIVE: record["score"]}

    def _prune(self, planned: int, curve: Sequence[float]) -> None:
        """Ends a trial that is behind the median, unless its last epoch is done."""
        if len(curve) < planned and self.oracle.is_behind(curve, planned):
            raise trials.PrunedError

    def _search_in_processes(self) -> None:
        """Runs all trials, several at a time."""
        self.oracle.verbose = 0
        running: dict[int, Any] = {}  # number of a process -> its trial
        with parallel.Workers(
            self.settings, self.train_images, self.val_images, self._num_classes, _cores()
        ) as workers:
            # The arrays in memory are no longer needed.
            self.train_images, self.val_images = workers.train_images, workers.val_images
            workers.start(min(self.oracle.parallel, len(self.oracle.plan) - len(self.oracle.records)))
            while True:
                self._begin_trials(workers, running)
                if not running:
                    return
                number, answer = workers.receive()
                trial = running[number]
                if "fatal" in answer:
                    raise keras_tuner.errors.FatalError(f"a trial cannot be run: {answer['fatal']}")
                if "timed" in answer:
                    self._announce(trials.Timing(**answer["timed"]))
                if "curve" in answer:
                    self._show_epoch(trial, answer["curve"])
                if "record" in answer:
                    self._end_trial(running.pop(number), answer["record"])

    def _begin_trials(self, workers: parallel.Workers, running: dict[int, Any]) -> None:
        """Begins trials in all idle processes, as far as their values do not depend on running trials."""
        for number in range(self.oracle.parallel):
            if number in running or self.oracle.waits_for_others():
                continue
            trial = self.oracle.create_trial(f"tuner{number}")
            if trial.status != TrialStatus.RUNNING:
                return
            workers.begin(
                number,
                spaces.decode(trial.hyperparameters.values),
                self.oracle.epochs_of(trial),
                self._name(trial),
                timed=not self._announced,
            )
            running[number] = trial

    def _show_epoch(self, trial: Any, curve: Sequence[float]) -> None:
        """Logs how far a trial in another process is."""
        _LOG.info(
            "%s: epoch %d/%d, %s %.4f%s",
            self._name(trial),
            len(curve),
            self.oracle.epochs_of(trial) * len(trials.phases(self.settings)),
            oracles.OBJECTIVE,
            curve[-1],
            self._standing(),
        )

    def _end_trial(self, trial: Any, record: dict[str, Any]) -> None:
        """Ends a trial of another process, as KerasTuner does with those of this one."""
        self.oracle.records[trial.trial_id] = record
        if record["state"] == results.FAILED:
            trial.status, trial.message = TrialStatus.FAILED, record["reason"]
        else:
            self.oracle.update_trial(trial.trial_id, {oracles.OBJECTIVE: record["score"]})
            trial.status = TrialStatus.COMPLETED
        self.on_trial_end(trial)

    def _accepts(self, values: Mapping[str, Any]) -> bool:
        """Returns whether the settings accept a trial's values, and its network the size of the images."""
        try:
            settings = spaces.apply(self.settings, values)
            settings.model.network.check_image_size(self.train_images.shape[:2], settings.trainer.crop_scales)
        except ValueError:
            return False
        return True

    def on_trial_end(self, trial: Any) -> None:
        """Saves the search, and logs a line."""
        super().on_trial_end(trial)
        trial, record = self.oracle.get_trial(trial.trial_id), self.oracle.records[trial.trial_id]
        outcome = {
            results.COMPLETE: _score(trial),
            results.PRUNED: f"stopped after epoch {len(record['curve'])}, behind the median",
            results.FAILED: f"failed: {record['reason']}",
        }[record["state"]]
        _LOG.info("%s: %s, %s%s", self._name(trial), _describe(trial), outcome, self._standing())

    def _name(self, trial: Any) -> str:
        return f"trial {self.oracle.number_of(trial)}/{len(self.oracle.plan)}"

    def _standing(self) -> str:
        """Describes the best trial so far and the time that is left."""
        best = self.oracle.get_best_trials()
        parts = [f"{len(self.oracle.records)} done"] if self.oracle.parallel > 1 else []
        if best and best[0].status == TrialStatus.COMPLETED:
            parts.append(f"best so far {best[0].score:.4f}")
        if left := self.oracle.seconds_left():
            parts.append(f"about {durations.describe_left(left)} left")
        return f" ({', '.join(parts)})" if parts else ""

    def _announce(self, timing: trials.Timing) -> None:
        """Logs once what is to come, from the first steps of the first trial."""
        if self._announced:
            return
        self._announced = True
        per_image = timing.step / min(timing.batch_size, len(self.train_images))
        epoch = per_image * (len(self.train_images) + _VALIDATION_SHARE * len(self.val_images))
        # Each process computes the features of a frozen network once, unless trials differ in them.
        repeated = any(map(trials.changes_features, self.settings.tuner.space))
        setup = timing.setup + repeated * timing.features
        phases = len(trials.phases(self.settings))
        planned = self.oracle.plan
        seconds = self._estimated = (
            self.oracle.seconds
            - timing.elapsed
            + (not repeated) * timing.features
            + plan.duration((setup + phases * epochs * epoch for epochs in planned), self.oracle.parallel)
        )
        minutes = self.settings.tuner.budget.minutes
        limit = (
            f" (tuner.budget.minutes allows {durations.describe(60 * minutes)})"
            if minutes and 60 * minutes < seconds
            else ""
        )
        _LOG.info(
            "%s of up to %s on %s images%s, about %s%s",
            spaces.count(len(planned), "trial"),
            spaces.count(max(planned), "epoch"),
            f"{len(self.train_images):,}",
            f", {self.oracle.parallel} at a time" if self.oracle.parallel > 1 else "",
            durations.describe_left(seconds),
            limit,
        )


def _cores() -> list[int]:
    """Returns the numbers of the CPU cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def _describe_failures(rows: Sequence[Mapping[str, Any]]) -> str:
    """Words why a search has failed, from the rows of its trials, all of which have failed."""
    reasons = [f"trial {row['trial']}: {row['reason']}" for row in rows]
    if rest := reasons[_FAILURES_NAMED:]:
        reasons[_FAILURES_NAMED:] = [f"and {len(rest)} more, which the log lists"]
    return (
        f"no trial of the Tuner has a result, {len(rows)} failed: {'; '.join(reasons)}. Give tuner.space "
        "other values: lower ones of trainer.learning_rate where a loss is not finite, smaller batches or "
        "networks where the memory is not enough"
    )


def _describe(trial: Any) -> str:
    values = spaces.decode(trial.hyperparameters.values)
    return ", ".join(f"{key} {spaces.format_value(value)}" for key, value in values.items())


def _score(trial: Any) -> str:
    return f"{oracles.OBJECTIVE} {trial.score:.4f}" if trial.score is not None else "no score"
