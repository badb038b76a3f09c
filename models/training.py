"""Training: optimizer, learning rate, early stopping, history; from arrays of images to a trained model."""

from __future__ import annotations

import logging
import math

import keras
import numpy as np
import tensorflow as tf

from models import (
    checkpoint,
    cnn,
    distribution,
    input,
    losses,
    mobilenetv2,
    normalization,
    optimizers,
    precision,
    schedules,
    weights,
)
from models.history import History
from models.monitor import BestWeights, Monitor, Phase, Run
from pipeline.config import TrainingSettings

_LOG = logging.getLogger(__name__)

TRAINING = "training"
FINE_TUNING = "fine-tuning"

# What a phase learns from, and what it is validated on.
PhaseData = tuple[input.Images | input.Features, input.Images | input.Features]


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
    settings.check_image_size(train_images.shape[:2])
    with workers.strategy.scope(), precision.of_layers(settings.trainer.precision):
        if config.architecture == "cnn":
            model = cnn.build(config.cnn, train_images.shape, num_classes)
            if config.cnn.whitening:
                statistics = cnn.measure_patches(train_images.pixels)
                # Of workers that have more images, more.
                cnn.whiten(model, *(workers.average(values, len(train_images)) for values in statistics))
        else:
            model = mobilenetv2.build(config.mobilenetv2, train_images.shape, num_classes)
            if _pretrained(settings):
                mobilenetv2.freeze(model)
    if workers.replicas > 1:
        distribution.synchronize(model)
    return model


def seed(settings: TrainingSettings) -> None:
    """Seeds whatever is random in this process; call it before `build`."""
    keras.utils.set_random_seed(settings.seed)
    if settings.trainer.deterministic:
        tf.config.experimental.enable_op_determinism()


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
    checkpoints: checkpoint.Checkpoint | None = None,
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
      checkpoints: where the training is kept after each epoch, and taken up if there is one already; the same
        for all workers. None keeps nothing.

    Returns:
      The model with the weights of the epoch with the lowest validation loss of all, computing in float32
      whatever it was trained in, and the history.

    Raises:
      TrainingDivergedError: the loss is not finite any more.
      ValueError: a split is empty, the images do not suit the network, or the checkpoint is damaged.
    """
    check(train_images, val_images, num_classes)
    workers = workers or distribution.Workers()
    if directory is not None:
        tf.io.gfile.makedirs(directory)
    seed(settings)
    model = build(settings, train_images, num_classes, workers)
    run = Run(BestWeights(model), directory=directory, checkpoints=checkpoints)
    resumed = checkpoints.load() if checkpoints else None
    for phase in phases(settings, learning_rate, batch_size):
        if resumed and phase.name != resumed.progress["phase"]:
            continue  # It was over before.
        data: PhaseData
        if phase.name == FINE_TUNING:
            mobilenetv2.unfreeze_from(model, settings.model.mobilenetv2.fine_tune_from)
            data = train_images, val_images
        else:
            data = first_phase_data(settings, model, train_images, val_images, workers)
        fit(model, *data, phase, settings, run=run, workers=workers, resumed=resumed)
        resumed = None
    # A copy is without the strategy of several workers, too.
    return precision.in_float32(model), run.history


def phases(
    settings: TrainingSettings, learning_rate: float | None = None, batch_size: int | None = None
) -> list[Phase]:
    """Returns the phases of training, in their order; None takes what is configured."""
    peak = learning_rate or settings.trainer.learning_rate
    batch_size = batch_size or settings.trainer.batch_size
    first = Phase(TRAINING, settings.trainer.epochs, peak, batch_size)
    config = settings.model.mobilenetv2
    # Random weights have no top to be fine-tuned: all of them are trained from the start.
    if not _pretrained(settings) or not config.fine_tune_epochs:
        return [first]
    return [first, Phase(FINE_TUNING, config.fine_tune_epochs, peak * config.fine_tune_rate, batch_size)]


def first_phase_data(
    settings: TrainingSettings,
    model: keras.Model,
    train_images: input.Images,
    val_images: input.Images,
    workers: distribution.Workers | None = None,
) -> PhaseData:
    """Returns what the first phase of training takes: where all but the head is frozen, the head's input.

    Args:
      settings: which network, and how images are augmented.
      model: what `build` returned.
      train_images: of which several augmented views are computed.
      val_images: computed as they are.
      workers: those that train together, each with its own images.
    """
    if not _pretrained(settings):
        return train_images, val_images
    own_seed = (workers or distribution.Workers()).seed(settings.seed)
    views = settings.model.mobilenetv2.feature_views
    return (
        mobilenetv2.features("training", model, train_images, settings.augmentation, own_seed, views),
        mobilenetv2.features("validation", model, val_images),
    )


def fit(
    model: keras.Model,
    train_data: input.Images | input.Features,
    val_data: input.Images | input.Features,
    phase: Phase,
    settings: TrainingSettings,
    *,
    run: Run,
    workers: distribution.Workers | None = None,
    resumed: checkpoint.State | None = None,
) -> None:
    """Runs one phase; afterwards `model` holds the best weights of this phase and those before.

    Args:
      model: with what is to be trained marked trainable.
      train_data: to learn from; with features, only the head of `model` is used.
      val_data: to stop by.
      phase: epochs, peak learning rate and batch size.
      settings: the rest.
      run: what it belongs to; is brought up to date.
      workers: those that train together; `model` was built in the scope of their strategy.
      resumed: this phase after an epoch, to go on from.

    Raises:
      TrainingDivergedError: a loss is not finite.
    """
    workers = workers or distribution.Workers()
    trainer = settings.trainer
    train_count, train_sizes = workers.share(len(train_data), phase.batch_size)
    val_count, val_sizes = workers.share(len(val_data), phase.batch_size)
    steps_per_epoch = math.ceil(train_count / phase.batch_size)
    steps = steps_per_epoch * phase.epochs
    schedule = schedules.Schedule(
        trainer.schedule, phase.learning_rate, steps, round(trainer.warmup_fraction * steps)
    )
    crops = schedules.Crops(trainer.crop_scales, phase.epochs)
    trained = model
    if isinstance(train_data, input.Features):
        trained = mobilenetv2.head(model)
    elif crops.smaller:
        trained = cnn.for_any_size(model)
    normalization.set_momentum(trained, steps_per_epoch)
    network = distribution.Network(trained.inputs, trained.outputs[0])
    with workers.strategy.scope():
        network.compile(
            optimizer=optimizers.create(trainer, network, schedule),
            loss=losses.CrossEntropy(
                trainer.label_smoothing, _class_weights(settings, model, train_data, workers)
            ),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            # Keras' own choice compiles with XLA on CPUs too, where convolutions get slower by it. And it
            # does not see that there are replicas, whose steps XLA cannot compile.
            jit_compile="auto" if workers.replicas == 1 and tf.config.list_physical_devices("GPU") else False,
        )
        network.optimizer.build(network.trainable_variables)
        monitor = Monitor(
            network,
            phase=phase,
            schedule=schedule,
            crops=crops,
            patience_epochs=trainer.early_stopping_patience,
            train_count=train_count,
            steps_per_epoch=steps_per_epoch,
            run=run,
        )
        first_epoch = monitor.resume(resumed) if resumed else 0
    _LOG.info(
        "%s: %d images, up to %d epochs, peak learning rate %.3g, batch size %d, %s trainable parameters, %s",
        phase.name,
        train_count,
        phase.epochs,
        phase.learning_rate,
        phase.batch_size,
        f"{sum(math.prod(v.shape) for v in network.trainable_variables):,}",
        trainer.precision,
    )
    if resumed:
        _LOG.info("%s: goes on after epoch %d", phase.name, resumed.progress["epoch"])
    own_seed = workers.seed(settings.seed)
    train_batches = workers.distribute(
        lambda: input.training_batches(
            train_data,
            train_sizes,
            settings.augmentation,
            own_seed,
            first_epoch,
            crops if crops.smaller else None,
        )
    )
    if workers.replicas == 1:
        train_batches = input.observed(train_batches, monitor.on_batch_arrived)
    with workers.strategy.scope():
        network.fit(
            train_batches,
            validation_data=workers.distribute(lambda: input.validation_batches(val_data, val_sizes)),
            initial_epoch=first_epoch,
            epochs=phase.epochs,
            steps_per_epoch=steps_per_epoch,
            validation_steps=math.ceil(val_count / phase.batch_size),
            callbacks=[monitor],
            verbose=0,
        )
    run.best.restore()


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


def _class_weights(
    settings: TrainingSettings,
    model: keras.Model,
    train_data: input.Images | input.Features,
    workers: distribution.Workers,
) -> list[float] | None:
    if settings.trainer.class_weights == "none":
        return None
    counts = np.bincount(train_data.labels, minlength=model.output_shape[-1])
    return losses.balanced_weights(workers.average(counts.astype(np.float64)))


def _pretrained(settings: TrainingSettings) -> bool:
    config = settings.model
    return config.architecture == "mobilenetv2" and config.mobilenetv2.weights != weights.RANDOM
