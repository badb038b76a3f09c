"""The Trainer's `run_fn`: reads its arguments, trains, exports."""

from __future__ import annotations

import json
import logging
import posixpath
import time
from typing import Any

import keras_tuner
import tensorflow as tf

from models import arguments, checkpoint, distribution, environment, export, monitor, training
from pipeline.config import TrainerConfig

_LOG = logging.getLogger(__name__)

HYPERPARAMETERS = "hyperparameters.json"
CHECKPOINTS = "checkpoints"
TUNER = "tuner"
CONFIG = "config"


def run_fn(fn_args: Any) -> None:
    """Trains the configured network and exports it; called by TFX's Trainer.

    Where the environment variable TF_CONFIG names several workers, they train one network together, each
    on its part of the examples, and the chief writes.

    Args:
      fn_args: TFX's FnArgs. Written are the SavedModel in `serving_model_dir`, and in `model_run_dir`
        `history.json`, `hyperparameters.json`, `environment.json` and TensorBoard's logs. Two folders above
        `model_run_dir` is a checkpoint until the model is there: a run after one that was killed goes on from
        its last epoch.

    Raises:
      TrainingDivergedError: the loss is not finite any more; the checkpoint is removed.
      WorkerLostError: another worker has failed.
    """
    start = time.monotonic()
    workers = distribution.join()
    step = arguments.read(fn_args)
    used = hyperparameters(step.settings.trainer, fn_args.hyperparameters)
    if workers.chief:
        tf.io.gfile.makedirs(fn_args.model_run_dir)
        _write_json(f"{fn_args.model_run_dir}/{HYPERPARAMETERS}", used)
    for name, entry in used.items():
        _LOG.info("%s %.4g, from the %s", name, entry["value"], entry["source"])
    # Beside the folders of single runs, of which the next one has another.
    checkpoints_directory = f"{posixpath.dirname(posixpath.dirname(fn_args.model_run_dir))}/{CHECKPOINTS}"
    with workers.failing_together():
        train_images, val_images = step.read_images(part=(workers.index, workers.count))
        checkpoints = checkpoint.Checkpoint(
            checkpoints_directory,
            {
                # Settings, and the digest of the code.
                **fn_args.custom_config,
                "precision": step.settings.trainer.precision,  # on this machine, of `auto`
                "class_names": step.class_names,
                "hyperparameters": {name: entry["value"] for name, entry in used.items()},
                "images": [workers.sum(images.checksum()) for images in (train_images, val_images)],
            },
        )
        try:
            model, history = training.train(
                step.settings,
                train_images,
                val_images,
                step.num_classes,
                fn_args.model_run_dir if workers.chief else None,
                learning_rate=used["learning_rate"]["value"],
                batch_size=used["batch_size"]["value"],
                workers=workers,
                checkpoints=checkpoints,
            )
        except monitor.TrainingDivergedError:
            if workers.chief:
                checkpoints.remove()  # From there it would diverge again.
            raise
        if workers.chief:
            described = environment.describe(
                history.seconds_before + time.monotonic() - start,
                step.settings.trainer.precision,
                workers.count,
            )
            _write_json(f"{fn_args.model_run_dir}/{environment.FILE}", described)
            export.export(model, step.transform, step.class_names, fn_args.serving_model_dir)
            checkpoints.remove()
        workers.wait()  # TFX looks for the model in every worker.


def _write_json(path: str, value: Any) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(value, indent=2))


def hyperparameters(config: TrainerConfig, tuned: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Says which learning rate and batch size are used, and where each comes from.

    Args:
      config: the configured ones.
      tuned: the Tuner's best, a KerasTuner HyperParameters config; None without a Tuner.

    Returns:
      `learning_rate` and `batch_size`, each {"value": number, "source": "tuner" | "config"}.
    """
    values = keras_tuner.HyperParameters.from_config(tuned).values if tuned else {}
    return {
        name: {"value": values[name], "source": TUNER}
        if name in values
        else {"value": getattr(config, name), "source": CONFIG}
        for name in ("learning_rate", "batch_size")
    }
