"""Trains the networks of a search, one trial at a time."""

from __future__ import annotations

import dataclasses
import functools
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from models.data.images import Images
from models.networks import registry
from models.search import results
from models.training import loop
from models.training.history import Epoch
from models.training.run import BestWeights, Phase, Run, TrainingDivergedError
from settings import search as spaces
from settings.training import TrainingSettings

# Steps that are timed for the estimate of the search's duration, after the one that compiles the graph.
_TIMED_STEPS = 5


class PrunedError(Exception):
    """A trial is behind the median of the others."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long the beginning of a trial took, in seconds.

    Attributes:
      elapsed: since the trial began.
      features: for the features of a frozen network; 0 if there are none, or if they were known.
      setup: until the first step was done, without those features.
      step: for a training step.
      batch_size: images in a step.
    """

    elapsed: float
    features: float
    setup: float
    step: float
    batch_size: int


class Trials:
    """Trains networks with the values of trials, on the same images."""

    def __init__(
        self, settings: TrainingSettings, train_images: Images, val_images: Images, num_classes: int
    ) -> None:
        """Creates the trials of a search.

        Args:
          settings: the settings, of which a trial changes some.
          train_images: the images that each trial trains on.
          val_images: the images that each trial's accuracy is measured on.
          num_classes: number of classes; labels are smaller.
        """
        self._settings = settings
        self._train_images = train_images
        self._val_images = val_images
        self._num_classes = num_classes
        self._features: tuple[str, loop.PhaseData] | None = None
        self._features_seconds = 0.0

    def run(
        self,
        values: Mapping[str, Any],
        epochs: int,
        name: str,
        on_timed: Callable[[Timing], None] | None = None,
        on_epoch: Callable[[Sequence[float]], None] | None = None,
    ) -> dict[str, Any]:
        """Trains the network of a trial.

        A trial whose loss is not finite, or whose memory is not enough, has failed.

        Args:
          values: dotted key of each searched setting -> its value.
          epochs: epochs of each phase.
          name: shown in logs.
          on_timed: called once, when a few steps are timed; None does not time them.
          on_epoch: called after each epoch with the validation accuracy of each epoch so far. A PrunedError
            from it ends the trial.

        Returns:
          The trial's record, see `record`. Its score is the validation accuracy of the epoch with the lowest
          validation loss.
        """
        started = time.perf_counter()
        run: _TrialRun | None = None
        state, reason = results.COMPLETE, None
        _free_memory()
        try:
            settings = spaces.apply(self._settings, values)
            loop.seed(settings)
            model = loop.build(settings, self._train_images, self._num_classes)
            run = _TrialRun(BestWeights(model), on_epoch=on_epoch)
            self._train(settings, model, name, epochs, run, started, on_timed)
        except PrunedError:
            state = results.PRUNED
        except (TrainingDivergedError, tf.errors.ResourceExhaustedError, MemoryError) as error:
            state, reason = results.FAILED, _summarize(error).removeprefix(name).strip()
        return record(
            epochs,
            run.curve if run else [],
            time.perf_counter() - started,
            len(self._train_images),
            state=state,
            reason=reason,
            score=None if run is None or state == results.FAILED else run.history.best.val_accuracy,
        )

    def _train(
        self,
        settings: TrainingSettings,
        model: keras.Model,
        name: str,
        epochs: int,
        run: Run,
        started: float,
        on_timed: Callable[[Timing], None] | None,
    ) -> None:
        """Runs the phases of a trial."""
        self._features_seconds = 0.0
        for stage, phase in phases(settings):
            stage.mark_trainable(model)
            data: loop.PhaseData = self._train_images, self._val_images
            if stage.on_features:
                data = self._compute_features(settings, model)
            callbacks = []
            if on_timed is not None:
                callbacks = [_Timer(functools.partial(self._time, on_timed, started, phase.batch_size))]
                on_timed = None  # only the first phase is timed
            loop.fit(
                model,
                *data,
                dataclasses.replace(phase, name=name, epochs=epochs),
                settings,
                run=run,
                callbacks=callbacks,
            )

    def _time(
        self,
        on_timed: Callable[[Timing], None],
        started: float,
        batch_size: int,
        first_step: float,
        step: float,
    ) -> None:
        on_timed(
            Timing(
                elapsed=time.perf_counter() - started,
                features=self._features_seconds,
                setup=first_step - started - self._features_seconds,
                step=step,
                batch_size=batch_size,
            )
        )

    def _compute_features(self, settings: TrainingSettings, model: keras.Model) -> loop.PhaseData:
        """Returns the features of a frozen network; they are kept for trials with the same ones."""
        names = type(settings.model.network).model_fields
        network = settings.model.network.model_dump_json(
            exclude={name for name in names if not changes_features(f"model.{name}")}
        )
        key = f"{network} {settings.augmentation.model_dump_json()}"
        if self._features is None or self._features[0] != key:
            started = time.perf_counter()
            self._features = key, loop.features(settings, model, self._train_images, self._val_images)
            self._features_seconds = time.perf_counter() - started
        return self._features[1]


def record(
    epochs: int,
    curve: Sequence[float],
    seconds: float,
    train_images: int,
    *,
    state: str,
    reason: str | None = None,
    score: float | None = None,
) -> dict[str, Any]:
    """Returns what is kept of a trial that has ended, as JSON-serialisable values.

    Args:
      epochs: planned epochs.
      curve: validation accuracy after each epoch, 0 to 1.
      seconds: duration.
      train_images: number of images of an epoch.
      state: one of the states in `results`.
      reason: reason of a failure.
      score: validation accuracy of the trial; None if it failed.

    Returns:
      The arguments by their names, except `train_images`: instead, `images` is the number of images that the
      trial has trained on.
    """
    return {
        "epochs": epochs,
        "curve": list(curve),
        "seconds": seconds,
        "images": len(curve) * train_images,
        "state": state,
        "reason": reason,
        "score": score,
    }


def phases(settings: TrainingSettings) -> list[tuple[registry.Stage, Phase]]:
    """Returns the phases of a trial: the first one, unless settings of fine-tuning are searched."""
    all_phases = loop.phases(settings)
    return all_phases if any(".fine_tune_" in key for key in settings.tuner.space) else all_phases[:1]


def changes_features(key: str) -> bool:
    """Returns whether the features of a frozen network depend on a setting, given by its dotted key."""
    section, _, name = key.rpartition(".")
    return section != "trainer" and name != "dropout" and "fine_tune" not in name


@dataclasses.dataclass
class _TrialRun(Run):
    """The training of a trial.

    Attributes:
      on_epoch: called with the validation accuracy of each epoch so far when an epoch has ended.
    """

    on_epoch: Callable[[Sequence[float]], None] | None = None

    @property
    def curve(self) -> list[float]:
        return [epoch.val_accuracy for epoch in self.history.epochs]

    def record(self, epochs: Sequence[Epoch]) -> None:
        super().record(epochs)
        if self.on_epoch:
            self.on_epoch(self.curve)


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


def _summarize(error: BaseException) -> str:
    """Returns the first line of an error's message; TensorFlow's messages have many."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
