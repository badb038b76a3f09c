"""The training loop: from arrays of images to a trained network and its history."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from models.data.batches import observed, training_batches, validation_batches
from models.data.crops import Crops
from models.data.images import Features, Images
from models.networks import pretrained, registry
from models.networks.layers import normalization
from models.training import (
    checkpoint,
    distribution,
    frozen_features,
    losses,
    optimizers,
    precision,
    schedules,
)
from models.training.early_stopping import EarlyStopping
from models.training.history import History
from models.training.monitor import Monitor
from models.training.progress import Progress
from models.training.run import BestWeights, Phase, Run
from settings.model import PretrainedConfig
from settings.training import TrainingSettings

_LOG = logging.getLogger(__name__)

# The images that a phase learns from, and those that it is validated on; or their features.
PhaseData = tuple[Images | Features, Images | Features]


def build(
    settings: TrainingSettings,
    train_images: Images,
    num_classes: int,
    workers: distribution.Workers | None = None,
) -> keras.Model:
    """Builds the configured network, ready for the first phase of training.

    Args:
      settings: which network.
      train_images: the images that it will learn from.
      num_classes: number of logits.
      workers: the processes that train together, each with its own images; None is this process alone.

    Returns:
      A model from float32 [batch, *train_images.shape] in [0, 1] to float32 logits [batch, num_classes]. With
      pretrained weights, only its head is trainable.
    """
    workers = workers or distribution.Workers()
    config, architecture = settings.model.network, registry.find(settings.model)
    config.check_image_size(train_images.shape[:2], settings.trainer.crop_scales)
    with workers.strategy.scope(), precision.policy(settings.trainer.precision):
        model = architecture.build(config, train_images.shape, num_classes)
        architecture.prepare(
            model, config, train_images, lambda values: workers.average(values, len(train_images))
        )
        architecture.stages(config)[0].mark_trainable(model)
    if workers.replicas > 1:
        distribution.synchronize(model)
    return model


def seed(settings: TrainingSettings) -> None:
    """Seeds the random generators of this process; call it before `build`."""
    keras.utils.set_random_seed(settings.seed)
    if settings.trainer.deterministic:
        tf.config.experimental.enable_op_determinism()


def train(
    settings: TrainingSettings,
    train_images: Images,
    val_images: Images,
    num_classes: int,
    directory: str | None,
    *,
    workers: distribution.Workers | None = None,
    checkpoints: checkpoint.Checkpoint | None = None,
) -> tuple[keras.Model, History]:
    """Trains the configured network.

    Args:
      settings: which network, and how it is trained.
      train_images: the images to learn from.
      val_images: the images that early stopping and the choice of the best epoch go by; of the same shape.
      num_classes: number of classes; labels are smaller.
      directory: where `history.json` and `tensorboard/` are written; it is created. None writes nothing.
      workers: the processes that train together, each with its own images; None is this process alone.
      checkpoints: saves the training after each epoch, and resumes one that was saved before; the same
        for all workers. None saves nothing.

    Returns:
      The model with the weights of the epoch with the lowest validation loss of all phases, computing in
      float32 whatever the precision of training, and the history.

    Raises:
      TrainingDivergedError: the loss is infinite or not a number.
      CheckpointError: the checkpoint is damaged, or of another network.
      ValueError: a split is empty, or the images do not suit the network.
    """
    check(train_images, val_images, num_classes)
    workers = workers or distribution.Workers()
    if directory is not None:
        tf.io.gfile.makedirs(directory)
    seed(settings)
    model = build(settings, train_images, num_classes, workers)
    run = Run(BestWeights(model), directory=directory, checkpoints=checkpoints)
    resumed = checkpoints.load() if checkpoints else None
    for stage, phase in phases(settings):
        if resumed and phase.name != resumed.progress["phase"]:
            continue  # The saved training had finished this phase.
        stage.mark_trainable(model)
        data: PhaseData = train_images, val_images
        if stage.on_features:
            data = features(settings, model, train_images, val_images, workers)
        fit(model, *data, phase, settings, run=run, workers=workers, resumed=resumed)
        resumed = None
    # The copy is also free of the strategy of several workers.
    return precision.in_float32(model), run.history


def phases(settings: TrainingSettings) -> list[tuple[registry.Stage, Phase]]:
    """Returns the stages of the configured architecture with their phases, in order."""
    trainer = settings.trainer
    return [
        (
            stage,
            Phase(
                stage.name,
                stage.epochs or trainer.epochs,
                trainer.learning_rate * stage.rate,
                trainer.batch_size,
            ),
        )
        for stage in registry.find(settings.model).stages(settings.model.network)
    ]


def features(
    settings: TrainingSettings,
    model: keras.Model,
    train_images: Images,
    val_images: Images,
    workers: distribution.Workers | None = None,
) -> PhaseData:
    """Computes the input of the head for `feature_views` augmented views of the training images.

    Args:
      settings: which network, and how images are augmented.
      model: what `build` returned for a pretrained network.
      train_images: the images to learn from.
      val_images: the images to validate on, which are not augmented.
      workers: the processes that train together, each with its own images.
    """
    own_seed = (workers or distribution.Workers()).seed(settings.seed)
    network = settings.model.network
    assert isinstance(network, PretrainedConfig)
    return (
        frozen_features.compute(
            "training", model, train_images, settings.augmentation, own_seed, network.feature_views
        ),
        frozen_features.compute("validation", model, val_images),
    )


def fit(
    model: keras.Model,
    train_data: Images | Features,
    val_data: Images | Features,
    phase: Phase,
    settings: TrainingSettings,
    *,
    run: Run,
    workers: distribution.Workers | None = None,
    resumed: checkpoint.State | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Runs one phase; afterwards `model` holds the best weights of this phase and those before.

    Args:
      model: the network, with its trainable layers marked.
      train_data: images or features to learn from; with features, only the head of `model` is used.
      val_data: images or features to validate on.
      phase: epochs, peak learning rate and batch size.
      settings: all other settings of the training.
      run: the training that the phase belongs to; it is updated.
      workers: the processes that train together; `model` was built in the scope of their strategy.
      resumed: saved state of this phase, from which it resumes; None starts at the first epoch.
      callbacks: observe the training.

    Raises:
      TrainingDivergedError: a loss is infinite or not a number.
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
    crops = Crops(trainer.crop_scales, phase.epochs)
    trained = model
    if isinstance(train_data, Features):
        trained = pretrained.head(model)
    elif crops.smaller:
        trained = _for_any_size(model)
    normalization.set_momentum(trained, steps_per_epoch)
    network = distribution.Network(trained.inputs, trained.outputs[0])
    with workers.strategy.scope():
        network.compile(
            optimizer=optimizers.create(trainer, network, schedule),
            loss=losses.CrossEntropy(
                trainer.label_smoothing, _class_weights(settings, model, train_data, workers)
            ),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            # Keras' own choice would compile with XLA on CPUs too, where it slows convolutions down, and
            # with several replicas, whose steps XLA cannot compile.
            jit_compile="auto" if workers.replicas == 1 and tf.config.list_physical_devices("GPU") else False,
        )
        network.optimizer.build(network.trainable_variables)
        early_stopping = EarlyStopping(schedule, trainer.early_stopping_patience)
        progress = Progress(phase, schedule, crops, train_count, steps_per_epoch)
        monitor = Monitor(network, run, phase, early_stopping, progress)
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
        _LOG.info("%s: resumes after epoch %d", phase.name, resumed.progress["epoch"])
    own_seed = workers.seed(settings.seed)
    train_batches = workers.distribute(
        lambda: training_batches(
            train_data,
            train_sizes,
            settings.augmentation,
            own_seed,
            first_epoch,
            crops if crops.smaller else None,
        )
    )
    if workers.replicas == 1:
        train_batches = observed(train_batches, progress.on_batch_arrived)
    with workers.strategy.scope():
        network.fit(
            train_batches,
            validation_data=workers.distribute(lambda: validation_batches(val_data, val_sizes)),
            initial_epoch=first_epoch,
            epochs=phase.epochs,
            steps_per_epoch=steps_per_epoch,
            validation_steps=math.ceil(val_count / phase.batch_size),
            callbacks=[progress, monitor, *callbacks],
            verbose=0,
        )
    run.best.restore()


def check(train_images: Images, val_images: Images, num_classes: int) -> None:
    """Raises a ValueError if a split is empty or has a label outside the classes."""
    for split, images in (("train", train_images), ("val", val_images)):
        if not len(images):
            raise ValueError(f"the {split} split is empty: training needs at least one image in it")
        lowest, highest = int(images.labels.min()), int(images.labels.max())
        if lowest < 0 or highest >= num_classes:
            raise ValueError(
                f"the {split} split has labels from {lowest} to {highest}, expected 0 to {num_classes - 1}"
            )


def _for_any_size(model: keras.Model) -> keras.Model:
    """Returns the network for images of any size; it shares the weights of `model`."""
    inputs = keras.Input((None, None, model.input_shape[-1]), name="any_image")
    return keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer)


def _class_weights(
    settings: TrainingSettings,
    model: keras.Model,
    train_data: Images | Features,
    workers: distribution.Workers,
) -> list[float] | None:
    if settings.trainer.class_weights == "none":
        return None
    counts = np.bincount(train_data.labels, minlength=model.output_shape[-1])
    return losses.balanced_weights(workers.average(counts.astype(np.float64)))
