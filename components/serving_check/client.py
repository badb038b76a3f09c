"""Loads a SavedModel as a model server does, and requests predictions; runs as a program of its own.

It imports nothing of this project, so that a model that works here works in any process that has TensorFlow.
Usage: python -I client.py MODEL_DIRECTORY REQUEST_JSON. The request is a JSON object with `examples`
(serialized tf.train.Example) and `image_bytes` (encoded images), both in hexadecimal, and `class_names`.
Lines of standard output that begin with `asking: ` say what is tried next; the answer is one JSON object on
the last line: the return value of `check`. The exit status `NO_VERDICT` says that this machine has failed,
not the model. The program ends when its standard input is closed, so that it does not outlive its parent.
"""

import errno
import json
import os
import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

# Signature of the model -> array of the request that is its input.
PREDICTING = {"serving_default": "examples", "serve_image_bytes": "image_bytes", "serve_images": "images"}
DESCRIBING = {"describe_image_bytes": "image_bytes", "describe_images": "images"}
EXPLAINING = "explain_image_bytes"
ANSWERS = ("probabilities", "class_id", "class_name")
OUTPUTS = (*ANSWERS, "top_k_names", "top_k_probabilities")
DESCRIPTIONS = (*ANSWERS, "features", "brightness", "contrast", "sharpness")
# Absolute tolerance of the sum of float32 probabilities, and of the difference between two predictions of the
# same image.
TOLERANCE = 1e-4
# Requests with a single image whose duration is measured: as many as this, or as fit into the time.
SINGLE_REQUESTS = 200
SECONDS_OF_SINGLE_REQUESTS = 5.0
LEAST_SINGLE_REQUESTS = 10
ASKING = "asking: "
NO_VERDICT = 75  # exit status EX_TEMPFAIL of sysexits.h: an attempt at another time may succeed
LARGE_SIDE = 4000  # pixels
# Parts of TensorFlow's messages that name nodes and places in the code of the model.
_NOISE = re.compile(
    r"Graph execution error:|Detected at node .*?\(most recent call last\):|<stack traces unavailable>"
    r"|\[\[.*?\]\]|\{\{.*?\}\}|\[Op:\w+\].*",
    re.DOTALL,
)


def check(model_directory: str, requests: dict[str, list[bytes]], class_names: list[str]) -> dict:
    """Requests predictions from every signature: for all images, for single ones, and with bad requests.

    Args:
      model_directory: path of the SavedModel.
      requests: the same images as `examples` (serialized tf.train.Example) and as `image_bytes` (encoded
        images).
      class_names: expected name of each class, in the order of the labels.

    Returns:
      {"problems": [...], "load_seconds": s, "latency_ms": {signature: {"p50": ms, "p99": ms, "requests": n}}
      of requests with a single image, "hostile": {request: "answered" or "refused: ..."}, "memory_mb": peak
      memory of this process in 10^6 bytes}.
    """
    start = time.perf_counter()
    print(f"{ASKING}load the model", flush=True)
    # The signatures do not keep the object alive that they need.
    loaded = tf.saved_model.load(model_directory)
    signatures = loaded.signatures
    load_seconds = time.perf_counter() - start
    missing = [name for name in (*PREDICTING, *DESCRIBING, EXPLAINING) if name not in signatures]
    if missing:
        problems = [f"signature {', '.join(missing)} is missing; found {sorted(signatures)}"]
        return {"problems": problems, "load_seconds": round(load_seconds, 2), "latency_ms": {}, "hostile": {}}
    inputs = {name: tf.constant(values) for name, values in requests.items()}
    explained = _ask(signatures[EXPLAINING], inputs["image_bytes"])
    problems = [f"{EXPLAINING}: {problem}" for problem in find_problems_of_heat(explained)]
    # What the network sees is an image that needs no resizing, so that the answers have to be the same.
    inputs["images"] = tf.constant(explained["image"])
    latency_ms = {}
    reference = None
    for name, source in PREDICTING.items():
        print(f"{ASKING}{name}", flush=True)
        answer = _ask(signatures[name], inputs[source])
        count = len(requests["examples"])
        found = find_problems(answer, count, class_names)
        problems += [f"{name}: {problem}" for problem in found]
        if "probabilities" not in answer:
            continue
        probabilities = answer["probabilities"]
        latency_ms[name], last, single = _measure(signatures[name], inputs[source])
        if not np.allclose(single["probabilities"][0], probabilities[last], atol=TOLERANCE):
            problems.append(f"{name}: an image gets different probabilities alone than in a batch")
        if reference is None:
            reference = probabilities
        elif not np.allclose(reference, probabilities, atol=TOLERANCE):
            problems.append(f"{name}: the same images get different probabilities from serving_default")
    for name, source in DESCRIBING.items():
        answer = _ask(signatures[name], inputs[source])
        problems += [f"{name}: {problem}" for problem in find_problems_of_descriptions(answer, reference)]
    hostile, found = ask_with_hostility(signatures, inputs, reference)
    return {
        "problems": [*problems, *found],
        "load_seconds": round(load_seconds, 2),
        "latency_ms": latency_ms,
        "hostile": hostile,
        "memory_mb": _peak_memory_mb(),
    }


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
    abstained = answer.get("abstained", np.zeros(batch_size, bool))
    named = ["" if no else class_names[i] for no, i in zip(abstained, class_id, strict=True)]
    if _texts(answer["class_name"]) != named:
        problems.append("class_name is not the name of the class that class_id gives")
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, : answer["top_k_names"].shape[1]]
    if not np.array_equal(answer["top_k_probabilities"], np.take_along_axis(probabilities, order, axis=1)):
        problems.append("top_k_probabilities are not the highest probabilities, in order")
    elif [_texts(row) for row in answer["top_k_names"]] != [[class_names[i] for i in row] for row in order]:
        problems.append("top_k_names are not the names of the most probable classes")
    return problems


def find_problems_of_descriptions(answer: dict[str, np.ndarray], reference: np.ndarray | None) -> list[str]:
    """Checks what a signature says of images.

    Args:
      answer: output name -> array, the outputs for one batch.
      reference: the probabilities that another signature returns for the same images; None if it fails.

    Returns:
      One line for each problem; empty if there is none.
    """
    missing = [key for key in DESCRIPTIONS if key not in answer]
    if missing:
        return [f"output {', '.join(missing)} is missing; found {sorted(answer)}"]
    problems = []
    if reference is not None and not np.allclose(answer["probabilities"], reference, atol=TOLERANCE):
        problems.append("the same images get different probabilities from serving_default")
    values = [answer[key] for key in DESCRIPTIONS if key not in ANSWERS]
    if not all(np.isfinite(value).all() and len(value) == len(answer["probabilities"]) for value in values):
        problems.append(
            "features, brightness, contrast or sharpness are not finite, or not one for each image"
        )
    return problems


def find_problems_of_heat(answer: dict[str, np.ndarray]) -> list[str]:
    """Checks what a signature says of where the network looks: `image` and `heat` of one batch."""
    image, heat = answer["image"], answer["heat"]
    if image.dtype != np.uint8 or image.shape[:3] != heat.shape or image.ndim != 4:
        return [f"image is {image.dtype} {image.shape} and heat {heat.shape}, expected one size in pixels"]
    if not np.isfinite(heat).all() or heat.min() < 0 or heat.max() > 1:
        return ["heat is not between 0 and 1"]
    return []


def ask_with_hostility(
    signatures: dict, inputs: dict[str, tf.Tensor], reference: np.ndarray | None
) -> tuple[dict[str, str], list[str]]:
    """Sends requests that no honest client sends; after each, the model has to answer as before.

    Args:
      signatures: the model's signatures.
      inputs: good requests, as for `check`, with `images`.
      reference: the probabilities of the good requests; None if the model does not answer them.

    Returns:
      (what became of each request: `answered`, or `refused` and the reason; one line for each problem).
    """
    outcomes, problems = {}, []
    for name, source in PREDICTING.items():
        for kind, value in _hostile(source, inputs[source]).items():
            request = f"{name} with {kind}"
            print(f"{ASKING}{request}", flush=True)
            try:
                _ask(signatures[name], value)
            # Whatever a bad request raises is a refusal.
            except Exception as error:
                outcomes[request] = f"refused: {_reason(error)}"
            else:
                outcomes[request] = "answered"
            try:
                again = _ask(signatures[name], inputs[source])["probabilities"]
            except Exception as error:
                return outcomes, [f"{name}: it no longer answers after {kind}: {_reason(error)}"]
            if reference is not None and not np.allclose(again, reference, atol=TOLERANCE):
                problems.append(f"{name}: it answers differently after {kind}")
    return outcomes, problems


def _hostile(source: str, good: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns hostile values of an input by their descriptions."""
    requests = {"an empty batch": good[:0], "a wrong rank": good[tf.newaxis]}
    side = LARGE_SIDE
    large = np.zeros((side, side, 3), np.uint8)
    large[::7] = 255  # so that it is not of one colour
    if source == "images":
        return {**requests, f"{side} x {side} pixels": tf.constant(large[np.newaxis])}
    jpeg = tf.io.encode_jpeg(large).numpy()
    files = {"a truncated JPEG": jpeg[: len(jpeg) // 2], f"a JPEG of {side} x {side} pixels": jpeg}
    if source == "examples":
        files = {kind: _example(content) for kind, content in files.items()}
    return {**requests, **{kind: tf.constant([content]) for kind, content in files.items()}}


def _example(image: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    return tf.train.Example(features=tf.train.Features(feature={"image": feature})).SerializeToString()


def _measure(signature, inputs: tf.Tensor) -> tuple[dict, int, dict[str, np.ndarray]]:
    """Measures requests with a single image.

    Returns:
      (the durations, as `check` returns them; the index of the image of the last request; its answer).
    """
    _ask(signature, inputs[:1])
    seconds: list[float] = []
    while len(seconds) < SINGLE_REQUESTS and (
        len(seconds) < LEAST_SINGLE_REQUESTS or sum(seconds) < SECONDS_OF_SINGLE_REQUESTS
    ):
        index = len(seconds) % len(inputs)
        single = inputs[index : index + 1]
        start = time.perf_counter()
        answer = _ask(signature, single)
        seconds.append(time.perf_counter() - start)
    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
    return {"p50": round(p50, 2), "p99": round(p99, 2), "requests": len(seconds)}, index, answer


def _ask(signature, value: tf.Tensor) -> dict[str, np.ndarray]:
    (argument,) = signature.structured_input_signature[1]
    return {name: output.numpy() for name, output in signature(**{argument: value}).items()}


def _texts(values: np.ndarray) -> list[str]:
    return [value.decode("utf-8") for value in values.tolist()]


def _reason(error: Exception) -> str:
    """Returns the message of an error on one line, without the names of nodes and operations."""
    text = " ".join(_NOISE.sub(" ", getattr(error, "message", None) or str(error)).split())
    return text[:300] or type(error).__name__


def _peak_memory_mb() -> float | None:
    """Returns the peak memory of this process in 10^6 bytes; None where the kernel does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    # Not `resource.getrusage`, whose value a process inherits from the one that started it.
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


def is_of_machine(error: BaseException) -> bool:
    """Returns whether an error says that memory or disk space is used up, and so nothing about the model."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))


def main() -> None:
    """Reads the request, checks the model and prints the answer."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    model_directory, request = sys.argv[1:]
    content = json.loads(Path(request).read_text(encoding="utf-8"))
    requests = {key: [bytes.fromhex(text) for text in content[key]] for key in ("examples", "image_bytes")}
    try:
        print(json.dumps(check(model_directory, requests, content["class_names"])))
    except Exception as error:
        if not is_of_machine(error):
            raise
        print(f"{type(error).__name__}: {_reason(error)}", file=sys.stderr)
        sys.exit(NO_VERDICT)


def _end_with_parent() -> None:
    """Waits until the parent closes the standard input or is gone, and ends this process."""
    os.read(0, 1)  # not through `sys.stdin`, whose lock would then be held when the interpreter ends
    os._exit(NO_VERDICT)


if __name__ == "__main__":
    main()
