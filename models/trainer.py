"""The Trainer's `run_fn`: reads its arguments, trains, exports."""

from __future__ import annotations

import json
import logging
import posixpath
import time
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine import hyperparameters as kinds

from models import export, run_files, step
from models.training import checkpoint, distribution, environment, loop
from models.training.run import TrainingDivergedError
from settings.training import BATCH_SIZE, LEARNING_RATE, TUNED, TrainerConfig

_LOG = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
# Where a hyperparameter comes from.
TUNER = "tuner"
CONFIG = "config"


def run_fn(fn_args: Any) -> None:
    """Trains the configured network and exports it; called by TFX's Trainer.

    Where the environment variable TF_CONFIG names several workers, they train one network together, each
    on its part of the examples, and the chief writes.

    Args:
      fn_args: TFX's FnArgs. Written are the SavedModel in `serving_model_dir`, and in `model_run_dir`
        `history.json`, `hyperparameters.json`, `environment.json` and TensorBoard's logs. Until the model is
        exported, a checkpoint is kept two folders above `model_run_dir`, from which a run after a killed one
        resumes.

    Raises:
      TrainingDivergedError: the loss is infinite or not a number; the checkpoint is removed.
      WorkerLostError: another worker has failed.
    """
    start = time.monotonic()
    workers = distribution.join()
    arguments = step.read(fn_args)
    settings = arguments.settings
    used = hyperparameters(settings.trainer, fn_args.hyperparameters)
    if workers.chief:
        tf.io.gfile.makedirs(fn_args.model_run_dir)
        _write_json(f"{fn_args.model_run_dir}/{run_files.HYPERPARAMETERS}", used)
    for name, entry in used.items():
        _LOG.info("%s %.4g, from the %s", name, entry["value"], entry["source"])
    # Outside the folder of this run, so that the next run finds it.
    checkpoints_directory = f"{posixpath.dirname(posixpath.dirname(fn_args.model_run_dir))}/{CHECKPOINTS}"
    with workers.failing_together():
        train_images, val_images = arguments.read_images(part=(workers.index, workers.count))
        checkpoints = checkpoint.Checkpoint(
            checkpoints_directory,
            {
                # Settings, and the digest of the code.
                **fn_args.custom_config,
                "precision": settings.trainer.precision,  # on this machine, of `auto`
                "class_names": arguments.class_names,
                "hyperparameters": {name: entry["value"] for name, entry in used.items()},
                "images": [workers.sum(images.checksum()) for images in (train_images, val_images)],
            },
        )
        try:
            model, history = loop.train(
                settings,
                train_images,
                val_images,
                arguments.num_classes,
                fn_args.model_run_dir if workers.chief else None,
                learning_rate=used[LEARNING_RATE]["value"],
                batch_size=used[BATCH_SIZE]["value"],
                workers=workers,
                checkpoints=checkpoints,
            )
        except TrainingDivergedError:
            if workers.chief:
                checkpoints.remove()  # Resumed, it would diverge again.
            raise
        if workers.chief:
            described = environment.describe(
                history.seconds_before + time.monotonic() - start,
                settings.trainer.precision,
                workers.count,
            )
            _write_json(f"{fn_args.model_run_dir}/{run_files.ENVIRONMENT}", described)
            export.export(model, arguments.transform, arguments.class_names, fn_args.serving_model_dir)
            checkpoints.remove()
        workers.wait()  # TFX looks for the model in every worker.


def _write_json(path: str, value: Any) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(value, indent=2))


def hyperparameters(config: TrainerConfig, tuned: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Returns the learning rate and batch size to train with, and where each comes from.

    Args:
      config: the configured ones.
      tuned: the Tuner's best, a KerasTuner HyperParameters config; None without a Tuner.

    Returns:
      `learning_rate` and `batch_size`, each {"value": number, "source": "tuner" | "config"}. A configured
      value that the search left alone counts as configured.
    """
    best = keras_tuner.HyperParameters.from_config(tuned) if tuned else keras_tuner.HyperParameters()
    searched = {each.name for each in best.space if not isinstance(each, kinds.Fixed)}
    used = {}
    for name in TUNED:
        configured = getattr(config, name)
        value = best.values.get(name, configured)
        used[name] = {"value": value, "source": TUNER if name in searched or value != configured else CONFIG}
    return used
