"""The Trainer's `run_fn`: reads its arguments, trains, calibrates, exports."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine import hyperparameters as kinds

from models import calibration, export, run_files, step
from models.training import checkpoint, distribution, environment, loop
from models.training.run import TrainingDivergedError
from settings import search
from settings.training import TrainingSettings

_LOG = logging.getLogger(__name__)

# The sources of a hyperparameter, as written to `hyperparameters.json`.
TUNER = "tuner"
CONFIG = "config"


def run_fn(fn_args: Any) -> None:
    """Trains the configured network, calibrates and exports it; called by TFX's Trainer.

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
    used = hyperparameters(arguments.settings, fn_args.hyperparameters)
    settings = search.apply(arguments.settings, {key: entry["value"] for key, entry in used.items()})
    if workers.chief:
        tf.io.gfile.makedirs(fn_args.model_run_dir)
        _write_json(f"{fn_args.model_run_dir}/{run_files.HYPERPARAMETERS}", used)
    for key, entry in used.items():
        _LOG.info("%s %s, from the %s", key, search.format_value(entry["value"]), entry["source"])
    checkpoints_directory = step.checkpoints_folder(fn_args.custom_config, fn_args.model_run_dir)
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
            # The chief has a part of the split if several workers share it.
            whole_split = val_images if workers.count == 1 else arguments.read_val_images()
            calibrated = calibration.fit(model, whole_split, settings.export)
            history.calibration = calibrated.described
            history.write(fn_args.model_run_dir)
            export.export(
                model,
                arguments.transform,
                arguments.class_names,
                fn_args.serving_model_dir,
                resize_method=settings.model.resize,
                background=settings.model.background,
                config=settings.export,
                calibrated=calibrated,
            )
            checkpoints.remove()
        workers.wait()  # TFX checks in every worker that the model exists.


def _write_json(path: str, value: Any) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(value, indent=2))


def hyperparameters(settings: TrainingSettings, tuned: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Returns the hyperparameters to train with, and the source of each.

    Args:
      settings: the configured values.
      tuned: the Tuner's best point, as the config of a KerasTuner HyperParameters; None without a Tuner.

    Returns:
      Dotted key -> {"value": value, "source": "tuner" | "config"}, of the settings that were searched and of
      those that are searched by default. The source of a value that was not searched and equals the
      configured one is "config".
    """
    best = keras_tuner.HyperParameters.from_config(tuned) if tuned else keras_tuner.HyperParameters()
    searched = {each.name for each in best.space if not isinstance(each, kinds.Fixed)}
    chosen = search.decode(best.values)
    used = {}
    for key in dict.fromkeys([*search.DEFAULT, *chosen]):
        configured = search.get(settings, key)
        value = chosen.get(key, configured)
        used[key] = {"value": value, "source": TUNER if key in searched or value != configured else CONFIG}
    return used
