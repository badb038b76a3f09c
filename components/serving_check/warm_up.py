"""Writes the requests with which TensorFlow Serving warms a model up before it answers.

See https://www.tensorflow.org/tfx/serving/saved_model_warmup.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components.serving_check import check

FILE = "assets.extra/tf_serving_warmup_requests"  # path within a SavedModel
BATCH_SIZES = (1, 32)


def write(path: str, encoded: bytes, seen: np.ndarray) -> None:
    """Writes one request for each signature that predicts and each of `BATCH_SIZES`.

    Args:
      path: file to write.
      encoded: an image, as clients send it. Larger batches repeat the smaller file of `seen`, because a batch
        of photographs would be larger than the model.
      seen: the image as the network sees it, uint8 [height, width, 3].
    """
    small = tf.io.encode_png(seen).numpy()
    with tf.io.TFRecordWriter(path) as writer:
        for size in BATCH_SIZES:
            images = [encoded if size == 1 else small] * size
            inputs: dict[str, tuple[str, Sequence[bytes] | np.ndarray]] = {
                "serving_default": ("examples", [check.unlabelled(image) for image in images]),
                "serve_image_bytes": ("image_bytes", images),
                "serve_images": ("images", np.repeat(seen[np.newaxis], size, axis=0)),
            }
            for signature, (name, values) in inputs.items():
                writer.write(_request(signature, name, values).SerializeToString())


def _request(
    signature: str, name: str, values: Sequence[bytes] | np.ndarray
) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return log
