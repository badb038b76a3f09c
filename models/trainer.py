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
# The sources of a hyperparameter, as written to `hyperparameters.json`.
TUNER = "tuner"
CONFIG = "config"


def run_fn(fn_args: Any) -> None:
    """Trains the configured network and exports it; called by TFX's Trainer.

    If the environment variable TF_CONFIG names several workers, they train one network together, each on
    its share of the examples, and only the chief writes files.

    Args:
      fn_args: TFX's FnArgs. The SavedModel is written to `serving_model_dir`. `history.json`,
        `hyperparameters.json`, `environment.json` and the TensorBoard logs are written to `model_run_dir`.
        Until the model is exported, a checkpoint is kept so that the next run can resume a killed one: in
        the folder that `custom_config` names as `checkpoints`, otherwise in `checkpoints`, two levels above
        `model_run_dir`.

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
    # Outside the folder of this run, so that the next run finds the checkpoint.
    checkpoints_directory = fn_args.custom_config.get(
        CHECKPOINTS, f"{posixpath.dirname(posixpath.dirname(fn_args.model_run_dir))}/{CHECKPOINTS}"
    )
    with workers.failing_together():
        train_images, val_images = arguments.read_images(part=(workers.index, workers.count))
        checkpoints = checkpoint.Checkpoint(
            checkpoints_directory,
            {
                # The settings and the digest of the code.
                **fn_args.custom_config,
                "precision": settings.trainer.precision,  # `auto` resolved for this machine
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
                checkpoints.remove()  # A resumed training would diverge again.
            raise
        if workers.chief:
            described = environment.describe(
                history.seconds_before + time.monotonic() - start,
                settings.trainer.precision,
                workers.count,
            )
            _write_json(f"{fn_args.model_run_dir}/{run_files.ENVIRONMENT}", described)
            export.export(
                model,
                arguments.transform,
                arguments.class_names,
                fn_args.serving_model_dir,
                resize_method=settings.model.resize,
                background=settings.model.background,
                config=settings.export,
            )
            checkpoints.remove()
        workers.wait()  # TFX checks in every worker that the model exists.


def _write_json(path: str, value: Any) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(value, indent=2))


def hyperparameters(config: TrainerConfig, tuned: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Returns the learning rate and batch size to train with, and the source of each.

    Args:
      config: the configured learning rate and batch size.
      tuned: the Tuner's best point, as the config of a KerasTuner HyperParameters; None without a Tuner.

    Returns:
      `learning_rate` and `batch_size`, each {"value": number, "source": "tuner" | "config"}. The source of a
      value that was not searched and equals the configured one is "config".
    """
    best = keras_tuner.HyperParameters.from_config(tuned) if tuned else keras_tuner.HyperParameters()
    searched = {each.name for each in best.space if not isinstance(each, kinds.Fixed)}
    used = {}
    for name in TUNED:
        configured = getattr(config, name)
        value = best.values.get(name, configured)
        used[name] = {"value": value, "source": TUNER if name in searched or value != configured else CONFIG}
    return used
