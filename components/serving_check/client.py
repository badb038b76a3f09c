"""Loads a SavedModel as a model server does, and requests predictions; runs as a program of its own.

It imports nothing of this project, so that a model that works here works in any process that has TensorFlow.
Usage: python -I client.py MODEL_DIRECTORY REQUEST_JSON. The request is a JSON object with `examples`
(serialized tf.train.Example) and `image_bytes` (encoded images), both in hexadecimal, and `class_names`. The
answer is one JSON object on the last line of standard output: the return value of `check`.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

# Signature of the model -> array of the request that is its input.
SIGNATURES = {"serving_default": "examples", "serve_image_bytes": "image_bytes"}
OUTPUTS = ("probabilities", "class_id", "class_name")
# Absolute tolerance of the sum of float32 probabilities, and of the difference between two predictions of the
# same image.
TOLERANCE = 1e-4


def check(model_directory: str, requests: dict[str, list[bytes]], class_names: list[str]) -> dict:
    """Requests predictions from every signature, for all images at once and for single images.

    Args:
      model_directory: path of the SavedModel.
      requests: the same images as `examples` (serialized tf.train.Example) and as `image_bytes` (encoded
        images).
      class_names: expected name of each class, in the order of the labels.

    Returns:
      {"problems": [...], "load_seconds": s, "latency_ms": {signature: median of single requests}}.
    """
    problems: list[str] = []
    start = time.perf_counter()
    signatures = tf.saved_model.load(model_directory).signatures
    load_seconds = time.perf_counter() - start
    latency_ms = {}
    reference = None
    for name, source in SIGNATURES.items():
        if name not in signatures:
            problems.append(f"signature {name} is missing; found {sorted(signatures)}")
            continue
        signature = signatures[name]
        (argument,) = signature.structured_input_signature[1]
        inputs = requests[source]
        answer = {k: v.numpy() for k, v in signature(**{argument: tf.constant(inputs)}).items()}
        problems += [f"{name}: {p}" for p in find_problems(answer, len(inputs), class_names)]
        if "probabilities" not in answer:
            continue
        probabilities = answer["probabilities"]
        seconds = []
        for single_input in inputs[:10]:
            start = time.perf_counter()
            single = signature(**{argument: tf.constant([single_input])})["probabilities"].numpy()
            seconds.append(time.perf_counter() - start)
        latency_ms[name] = round(1000 * float(np.median(seconds)), 2)
        last = min(len(inputs), 10) - 1
        if not np.allclose(single[0], probabilities[last], atol=TOLERANCE):
            problems.append(f"{name}: an image gets different probabilities alone than in a batch")
        if reference is None:
            reference = probabilities
        elif not np.allclose(reference, probabilities, atol=TOLERANCE):
            problems.append(f"{name}: the same images get different probabilities from serving_default")
    return {"problems": problems, "load_seconds": round(load_seconds, 2), "latency_ms": latency_ms}


def find_problems(answer: dict[str, np.ndarray], batch_size: int, class_names: list[str]) -> list[str]:
    """Checks the outputs of a signature: their presence, shapes, values and class names.

    Args:
      answer: output name -> array, the outputs for one batch.
      batch_size: number of images in the batch.
      class_names: expected name of each class, in the order of the labels.

    Returns:
      One line for each problem; empty if there is none.
    """
    missing = [key for key in OUTPUTS if key not in answer]
    if missing:
        return [f"output {', '.join(missing)} is missing; found {sorted(answer)}"]
    probabilities, class_id = answer["probabilities"], answer["class_id"]
    expected = (batch_size, len(class_names))
    if probabilities.shape != expected:
        return [f"probabilities have the shape {probabilities.shape}, expected {expected}"]
    problems = []
    if not np.isfinite(probabilities).all() or probabilities.min() < 0:
        problems.append("probabilities are negative or not finite")
    elif not np.allclose(probabilities.sum(axis=1), 1, atol=TOLERANCE):
        problems.append("probabilities do not sum to 1")
    if not np.array_equal(class_id, probabilities.argmax(axis=1)):
        problems.append("class_id is not the class with the highest probability")
    names = [name.decode("utf-8") for name in answer["class_name"].tolist()]
    if names != [class_names[i] for i in class_id]:
        problems.append("class_name is not the name of the class that class_id gives")
    return problems


def main() -> None:
    """Reads the request, checks the model and prints the answer."""
    model_directory, request = sys.argv[1:]
    content = json.loads(Path(request).read_text(encoding="utf-8"))
    requests = {key: [bytes.fromhex(text) for text in content[key]] for key in SIGNATURES.values()}
    print(json.dumps(check(model_directory, requests, content["class_names"])))


if __name__ == "__main__":
    main()
