"""A tiny model, and a server for it."""

import contextlib
import io
import shutil
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import tensorflow as tf
import uvicorn
from PIL import Image

from serving import app
from serving.engine import Limits

NAMES = ("dark", "bright")
# Looks for new versions so often that tests need not wait.
QUICK = {"refresh": 0.05}


class Brightness(tf.Module):
    """Classifies images by their mean; `tag` tells versions apart."""

    def __init__(self, tag, names):
        super().__init__()
        self._tag = tf.Variable(tag, dtype=tf.int64)
        self._names = tf.constant(names)

    def _answer(self, means):
        probabilities = tf.stack([1 - means, means], 1)
        class_id = tf.argmax(probabilities, 1)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "class_name": tf.gather(self._names, class_id),
            "tag": tf.fill(tf.shape(class_id), self._tag),
        }

    def _decode(self, images):
        def mean(encoded):
            image = tf.io.decode_image(encoded, 3, expand_animations=False)
            image.set_shape([None, None, 3])
            return tf.reduce_mean(tf.image.resize(image, [4, 4])) / 255

        return self._answer(tf.map_fn(mean, images, tf.float32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def examples(self, examples):
        return self._decode(
            tf.io.parse_example(examples, {"image": tf.io.FixedLenFeature([], tf.string)})["image"]
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(self, image_bytes):
        return self._decode(image_bytes)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def images(self, images):
        return self._answer(tf.reduce_mean(tf.cast(images, tf.float32), [1, 2, 3]) / 255)


def save(folder, tag, names=NAMES):
    """Writes the SavedModel whose outputs `tag` are `tag`."""
    module = Brightness(tag, list(names))
    signatures = {
        "serving_default": module.examples,
        "serve_image_bytes": module.image_bytes,
        "serve_images": module.images,
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra/labels.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def pretend(version):
    """Makes a folder that looks like a complete version, without a model in it."""
    (version / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        (version / name).touch()


def push(saved, model, version):
    """Copies a SavedModel to a version of a model, and gives it its name when it is whole."""
    model.mkdir(parents=True, exist_ok=True)
    part = model / "part"
    shutil.copytree(saved, part)
    return part.rename(model / str(version))


def picture(brightness, side=6, kind="PNG"):
    """Returns an encoded grey image."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), brightness, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def example(image):
    """Returns a serialized tf.train.Example."""
    made = tf.train.Example()
    made.features.feature["image"].bytes_list.value.append(image)
    return made.SerializeToString()


class Served:
    """A server in a thread of this process; `http` is a client of it."""

    def __init__(self, url):
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30)

    def wait_until(self, condition, seconds=30):
        """Waits until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.01)

    def states(self, name="m"):
        """Returns version -> state of a model."""
        answer = self.http.get(f"/v1/models/{name}").json()
        return {int(each["version"]): each["state"] for each in answer["model_version_status"]}

    def answering(self, name="m"):
        """Returns the tag of the version that answers."""
        body = {"signature_name": "serve_images", "instances": [[[[0, 0, 0]]]]}
        answer = self.http.post(f"/v1/models/{name}:predict", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["predictions"][0]["tag"]


@contextlib.contextmanager
def serve(root: Path, *, ready=True, grpc_address=None, log=None, **limits):
    """Serves the models of a folder, and waits until they answer."""
    application = app.create(root, Limits(**{**QUICK, **limits}), grpc_address, log)
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        served = Served(f"http://127.0.0.1:{port}")
        with contextlib.closing(served.http):
            if ready:
                served.wait_until(lambda: served.http.get("/readyz").status_code == 200)
            yield served
    finally:
        server.should_exit = True
        thread.join()
