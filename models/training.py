"""Training: optimizer, learning rate, early stopping, history; from arrays of images to a trained model."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models import cnn, distribution, input, mobilenetv2, optimizers, weights
from pipeline.config import TrainingSettings

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_MESSAGES = 5.0

HISTORY = "history.json"
TENSORBOARD = "tensorboard"
TRAINING = "training"
FINE_TUNING = "fine-tuning"


class TrainingDivergedError(RuntimeError):
    """The loss became infinite or not a number."""


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one epoch reached.

    `loss` and `accuracy` are means over the epoch, on augmented images while the weights changed;
    `val_loss` and `val_accuracy` belong to the weights at its end. Both losses are label-smoothed if
    training is. `learning_rate` is that of the last step, `seconds` includes the validation, and
    `images_per_second` counts training alone.
    """

    phase: str
    epoch: int  # from 1 in each phase
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float


@dataclasses.dataclass
class History:
    """All epochs of all phases, in their order."""

    epochs: list[Epoch] = dataclasses.field(default_factory=list)

    @property
    def best(self) -> Epoch:
        """The epoch with the lowest validation loss: its weights are the ones that are kept."""
        return min(self.epochs, key=lambda epoch: epoch.val_loss)

    def write(self, directory: str) -> None:
        """Writes `history.json`, whole or not at all; `best` is the position of the best epoch."""
        content = {
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
            "best": self.epochs.index(self.best),
        }
        temporary = f"{directory}/.{HISTORY}"  # not a Path: it may be in a bucket
        with tf.io.gfile.GFile(temporary, "w") as file:
            file.write(json.dumps(content, indent=2))
        tf.io.gfile.rename(temporary, f"{directory}/{HISTORY}", overwrite=True)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training with its own schedule and early stopping."""

    name: str
    epochs: int
    learning_rate: float
    batch_size: int


@keras.saving.register_keras_serializable("models")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to the peak, then constant, or down to 0 along a half cosine or a line.

    With `w` warm-up steps out of `n`, step `s` (from 0) has the rate `peak (s + 1) / w` while `s < w`,
    then, with `p = (s - w) / (n - w)`, `peak`, `peak (1 + cos(pi p)) / 2` (SGDR without restarts,
    arXiv:1608.03983) or `peak (1 - p)`.
    """

    def __init__(self, kind: str, peak: float, steps: int, warmup_steps: int) -> None:
        self.kind = kind
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rate = tf.constant(self.peak, tf.float32)
        progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        progress = tf.clip_by_value(progress, 0.0, 1.0)
        if self.kind == "cosine":
            rate *= 0.5 * (1.0 + tf.cos(math.pi * progress))
        elif self.kind == "linear":
            rate *= 1.0 - progress
        if self.warmup_steps:
            rate = tf.where(step < self.warmup_steps, self.peak * (step + 1.0) / self.warmup_steps, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "peak": self.peak,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
        }


class CrossEntropy(keras.losses.Loss):
    """The cross-entropy of logits and integer labels, with label smoothing.

    With smoothing `s` the target is `1 - s` on the label plus `s / classes` on every class, the label
    included (Szegedy et al., arXiv:1512.00567).
    """

    def __init__(self, label_smoothing: float) -> None:
        super().__init__(name="cross_entropy")
        self._smoothing = label_smoothing

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns float32 [batch] for labels [batch] or [batch, 1] and logits [batch, classes]."""
        labels = tf.cast(tf.reshape(y_true, [-1]), tf.int64)
        log_probabilities = tf.nn.log_softmax(tf.cast(y_pred, tf.float32))
        of_label = tf.gather(log_probabilities, labels, batch_dims=1)
        return -(1.0 - self._smoothing) * of_label - self._smoothing * tf.reduce_mean(log_probabilities, -1)


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Builds layers under a dtype policy, such as `mixed_bfloat16`, and restores the one before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build(
    settings: TrainingSettings,
    train_images: input.Images,
    num_classes: int,
    workers: distribution.Workers | None = None,
) -> keras.Model:
    """Builds the configured network, ready for the first phase of training.

    Args:
      settings: which network.
      train_images: what it will learn from.
      num_classes: number of logits.
      workers: those that train together, each with its own images; None is this process alone.

    Returns:
      A model from float32 [batch, *train_images.shape] in [0, 1] to float32 logits [batch, num_classes]. With
      pretrained weights, all but its head is frozen.
    """
    workers = workers or distribution.Workers()
    config = settings.model
    with workers.strategy.scope(), precision(settings.trainer.precision):
        if config.architecture == "cnn":
            model = cnn.build(config.cnn, train_images.shape, num_classes)
            if config.cnn.whitening:
                statistics = cnn.measure_patches(train_images.pixels)
                cnn.whiten(model, *(workers.average(values) for values in statistics))
        else:
            model = mobilenetv2.build(config.mobilenetv2, train_images.shape, num_classes)
            if _pretrained(settings):
                mobilenetv2.freeze(model)
    if workers.replicas > 1:
        distribution.synchronize(model)
    return model


def train(
    settings: TrainingSettings,
    train_images: input.Images,
    val_images: input.Images,
    num_classes: int,
    directory: str | None,
    *,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    workers: distribution.Workers | None = None,
) -> tuple[keras.Model, History]:
    """Trains the configured network.

    Args:
      settings: which network, and how.
      train_images: to learn from.
      val_images: to stop by; of the same image shape.
      num_classes: labels are under this number.
      directory: where `history.json` and `tensorboard/` are written; it is created. None writes nothing.
      learning_rate: peak; None takes the configured one.
      batch_size: None takes the configured one.
      workers: those that train together, each with its own images; None is this process alone.

    Returns:
      The model with the weights of the epoch with the lowest validation loss of all, and the history.

    Raises:
      TrainingDivergedError: the loss is not finite any more.
      ValueError: a split is empty, or the images do not suit the network.
    """
    check(train_images, val_images, num_classes)
    workers = workers or distribution.Workers()
    if directory is not None:
        tf.io.gfile.makedirs(directory)
    keras.utils.set_random_seed(settings.seed)
    model = build(settings, train_images, num_classes, workers)
    history = History()
    best = BestWeights()
    for phase in phases(settings, learning_rate, batch_size):
        if phase.name == FINE_TUNING:
            mobilenetv2.unfreeze_from(model, settings.model.mobilenetv2.fine_tune_from)
        fit(
            model,
            train_images,
            val_images,
            phase,
            settings,
            history=history,
            best=best,
            directory=directory,
            workers=workers,
        )
    if workers.replicas > 1:
        # Without the strategy, which nobody needs any more.
        weights_of_all = model.get_weights()
        model = keras.models.clone_model(model)
        model.set_weights(weights_of_all)
    return model, history


def phases(
    settings: TrainingSettings, learning_rate: float | None = None, batch_size: int | None = None
) -> list[Phase]:
    """Returns the phases of training, in their order; None takes what is configured."""
    peak = learning_rate or settings.trainer.learning_rate
    batch_size = batch_size or settings.trainer.batch_size
    first = Phase(TRAINING, settings.trainer.epochs, peak, batch_size)
    config = settings.model.mobilenetv2
    # Random weights have no top to be fine-tuned: all of them are trained from the start.
    if settings.model.architecture == "cnn" or not _pretrained(settings) or not config.fine_tune_epochs:
        return [first]
    return [first, Phase(FINE_TUNING, config.fine_tune_epochs, peak * config.fine_tune_rate, batch_size)]


class BestWeights:
    """The weights with the lowest validation loss so far, of however many phases."""

    def __init__(self) -> None:
        self.val_loss = math.inf
        self._weights: Sequence[np.ndarray] = ()

    def offer(self, model: keras.Model, val_loss: float) -> bool:
        """Keeps a copy of the weights if they are better; returns whether they are."""
        if val_loss >= self.val_loss:
            return False
        self.val_loss = val_loss
        self._weights = model.get_weights()
        return True

    def restore(self, model: keras.Model) -> None:
        """Puts the kept weights back, batch normalisation's statistics included."""
        model.set_weights(self._weights)


def fit(
    model: keras.Model,
    train_images: input.Images,
    val_images: input.Images,
    phase: Phase,
    settings: TrainingSettings,
    *,
    history: History,
    best: BestWeights | None = None,
    directory: str | None = None,
    workers: distribution.Workers | None = None,
) -> None:
    """Runs one phase; afterwards `model` holds the best weights of this phase and those before.

    Args:
      model: with what is to be trained marked trainable.
      train_images: to learn from.
      val_images: to stop by.
      phase: epochs, peak learning rate and batch size.
      settings: the rest.
      history: is appended to.
      best: of the phases before; is updated.
      directory: where the history and TensorBoard's logs are written; None writes nothing.
      workers: those that train together; `model` was built in the scope of their strategy.

    Raises:
      TrainingDivergedError: a loss is not finite.
    """
    best = best or BestWeights()
    workers = workers or distribution.Workers()
    trainer = settings.trainer
    train_count, train_sizes = workers.share(len(train_images), phase.batch_size)
    val_count, val_sizes = workers.share(len(val_images), phase.batch_size)
    train_batches = workers.distribute(
        lambda: input.training_batches(
            train_images, train_sizes, settings.augmentation, workers.seed(settings.seed)
        )
    )
    val_batches = workers.distribute(lambda: input.validation_batches(val_images, val_sizes))
    steps_per_epoch = math.ceil(train_count / phase.batch_size)
    steps = steps_per_epoch * phase.epochs
    schedule = Schedule(trainer.schedule, phase.learning_rate, steps, round(trainer.warmup_fraction * steps))
    network = distribution.Network(model.inputs, model.outputs[0])
    with workers.strategy.scope():
        network.compile(
            optimizer=optimizers.create(trainer, network, schedule),
            loss=CrossEntropy(trainer.label_smoothing),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            # Keras' own choice compiles with XLA on CPUs too, where convolutions get slower by it. And it
            # does not see that there are replicas, whose steps XLA cannot compile.
            jit_compile="auto" if workers.replicas == 1 and tf.config.list_physical_devices("GPU") else False,
        )
        network.optimizer.build(network.trainable_variables)
    _LOG.info(
        "%s: %d images, up to %d epochs, peak learning rate %.3g, batch size %d, %s trainable parameters",
        phase.name,
        train_count,
        phase.epochs,
        phase.learning_rate,
        phase.batch_size,
        f"{sum(math.prod(v.shape) for v in model.trainable_variables):,}",
    )
    monitor = _Monitor(
        phase=phase,
        schedule=schedule,
        patience_epochs=trainer.early_stopping_patience,
        train_count=train_count,
        steps_per_epoch=steps_per_epoch,
        history=history,
        best=best,
        directory=directory,
    )
    callbacks: list[keras.callbacks.Callback] = [monitor]
    if directory is not None:
        logs = f"{directory}/{TENSORBOARD}/{phase.name}"
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
    with workers.strategy.scope():
        network.fit(
            train_batches,
            validation_data=val_batches,
            epochs=phase.epochs,
            callbacks=callbacks,
            verbose=0,
            **workers.steps(steps_per_epoch, math.ceil(val_count / phase.batch_size)),
        )
    best.restore(network)


class _Monitor(keras.callbacks.Callback):
    """Watches a phase: logs, records, keeps the best weights, stops."""

    def __init__(
        self,
        *,
        phase: Phase,
        schedule: Schedule,
        patience_epochs: int,
        train_count: int,
        steps_per_epoch: int,
        history: History,
        best: BestWeights,
        directory: str | None,
    ) -> None:
        super().__init__()
        self._phase = phase
        self._schedule = schedule
        self._patience_epochs = patience_epochs
        self._train_count = train_count
        self._steps_per_epoch = steps_per_epoch
        self._history = history
        self._best = best
        self._directory = directory
        self._lowest = math.inf  # of this phase
        self._waited_epochs = 0
        self._epoch = 0
        self._started = self._trained = self._phase_started = self._last_message = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._phase_started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1
        self._started = self._last_message = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        step = batch + 1
        self._check_finite("loss", logs["loss"], f"step {step}")
        now = time.perf_counter()
        if self._epoch == 1 and step == 1:
            # The first step compiles the graph: neither speed nor time left can be told from it.
            self._phase_started = self._last_message = now
            return
        if now - self._last_message < _SECONDS_BETWEEN_MESSAGES:
            return
        self._last_message = now
        done = (self._epoch - 1) * self._steps_per_epoch + step
        left = self._phase.epochs * self._steps_per_epoch - done
        timed_steps, since = (step - 1, self._phase_started) if self._epoch == 1 else (step, self._started)
        _LOG.info(
            "%s: epoch %d/%d, step %d/%d, loss %.4f, accuracy %.4f, %.0f images/s, at most %s left",
            self._phase.name,
            self._epoch,
            self._phase.epochs,
            step,
            self._steps_per_epoch,
            logs["loss"],
            logs["accuracy"],
            self._train_count * timed_steps / self._steps_per_epoch / (now - since),
            _duration((now - self._phase_started) * left / (done - 1)),
        )

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        self._check_finite("val_loss", logs["val_loss"], "its end")
        val_loss = float(logs["val_loss"])
        record = Epoch(
            phase=self._phase.name,
            epoch=self._epoch,
            loss=float(logs["loss"]),
            accuracy=float(logs["accuracy"]),
            val_loss=val_loss,
            val_accuracy=float(logs["val_accuracy"]),
            learning_rate=float(self._schedule(self.model.optimizer.iterations.numpy() - 1)),
            seconds=time.perf_counter() - self._started,
            images_per_second=self._train_count / (self._trained - self._started),
        )
        self._history.epochs.append(record)
        best = self._best.offer(self.model, val_loss)
        _LOG.info(
            "%s: epoch %d/%d in %.1f s, loss %.4f, accuracy %.4f, val_loss %.4f, val_accuracy %.4f%s",
            self._phase.name,
            self._epoch,
            self._phase.epochs,
            record.seconds,
            record.loss,
            record.accuracy,
            record.val_loss,
            record.val_accuracy,
            " (best so far)" if best else "",
        )
        if self._directory is not None:
            self._history.write(self._directory)
        if val_loss < self._lowest:
            self._lowest, self._waited_epochs = val_loss, 0
            return
        self._waited_epochs += 1
        if self._waited_epochs >= self._patience_epochs and self._epoch < self._phase.epochs:
            _LOG.info(
                "%s: no lower val_loss for %d epochs, stopped early", self._phase.name, self._waited_epochs
            )
            self.model.stop_training = True

    def _check_finite(self, name: str, value: Any, where: str) -> None:
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"{self._phase.name} diverged: {name} is {float(value)} in epoch {self._epoch}, {where}, at "
                f"a peak learning rate of {self._phase.learning_rate:g}. Try a lower trainer.learning_rate, "
                "or a lower tuner.learning_rate.max if it was searched"
            )


def check(train_images: input.Images, val_images: input.Images, num_classes: int) -> None:
    """Raises a ValueError if a split is empty or has a label that is not among the classes."""
    for split, images in (("train", train_images), ("val", val_images)):
        if not len(images):
            raise ValueError(f"the {split} split is empty: training needs at least one image in it")
        lowest, highest = int(images.labels.min()), int(images.labels.max())
        if lowest < 0 or highest >= num_classes:
            raise ValueError(
                f"the {split} split has labels from {lowest} to {highest}, expected 0 to {num_classes - 1}"
            )


def _pretrained(settings: TrainingSettings) -> bool:
    return settings.model.mobilenetv2.weights != weights.RANDOM


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
