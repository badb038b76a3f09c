"""What `pipeline.doctor` asks of packages, each in a process of its own: `python -m pipeline.probes NAME`.

A broken package can end its process without an exception, for example with a CPU instruction that this
machine lacks. Each probe prints its answer as one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def tensorflow() -> dict[str, Any]:
    """Loads TensorFlow.

    Returns:
      `version`; `gpus`, the number of GPUs that TensorFlow can use; and `precision`, that of
      `trainer.precision=auto`.
    """
    import tensorflow as tf  # noqa: PLC0415

    from models.training import precision  # noqa: PLC0415

    return {
        "version": tf.__version__,
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "precision": precision.resolve(precision.AUTO),
    }


def downloads() -> dict[str, Any]:
    """Looks for the files that a run would otherwise download.

    Returns:
      `weights`: for each pretrained network [title, path in Keras' cache or null, address]; `cifar10`: [path
      of the downloaded archive or null, address]; `folders`: the caches of both.
    """
    from datasets import cifar10  # noqa: PLC0415
    from models.networks import weights  # noqa: PLC0415
    from settings.model import ModelConfig, PretrainedConfig  # noqa: PLC0415

    found = []
    for section in ModelConfig.architectures().values():
        config = section()
        if isinstance(config, PretrainedConfig):
            size = (224, 224)  # these weights serve images of any size
            path = weights.cached(config, size)
            address = config.backbone.weights_address + config.backbone.weights_files(config.width, size)[0]
            found.append([config.backbone.title, path and str(path), address])
    archive = cifar10.cache_folder() / cifar10.URL.rpartition("/")[2]
    return {
        "weights": found,
        "cifar10": [str(archive) if archive.exists() else None, cifar10.URL],
        "folders": [str(weights.cache_folder()), str(cifar10.cache_folder())],
    }


PROBES = {"tensorflow": tensorflow, "downloads": downloads}

if __name__ == "__main__":
    # Libraries also print to stdout.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        json.dump(PROBES[sys.argv[1]](), answer)
