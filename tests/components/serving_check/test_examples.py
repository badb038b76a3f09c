import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.serving_check import examples

NAMES = ["cat", "a/b: ünï", "long " * 60, *map(str, range(20))]


def encoded(label, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (label, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path):
    """Writes the examples of records, given as (label, image), and returns name -> content."""

    def run(records, names=NAMES):
        with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
            for label, image in records:
                example = tf.train.Example()
                example.features.feature["label"].int64_list.value.append(label)
                example.features.feature["image"].bytes_list.value.append(image)
                writer.write(example.SerializeToString())
        examples.write(str(tmp_path / "model"), [str(tmp_path / "records")], names)
        return {path.name: path.read_bytes() for path in (tmp_path / "model").glob("assets.extra/examples/*")}

    return run


def test_one_image_of_a_class_as_it_is_encoded(write):
    cat, jpeg = encoded(0), encoded(1, "JPEG")
    assert write([(0, cat), (0, encoded(9)), (1, jpeg)], NAMES[:2]) == {
        "cat.png": cat,
        "a%2Fb%3A %C3%BCn%C3%AF.jpg": jpeg,
    }


def test_at_most_eight_classes(write):
    assert len(write([(label, encoded(label)) for label in range(3, 20)])) == 8


def test_images_that_a_page_cannot_show_or_name_are_left_out(write):
    noise = np.random.default_rng(0).integers(0, 256, [600, 600, 3], np.uint8)
    large = io.BytesIO()
    Image.fromarray(noise).save(large, "PNG")
    # The second image of the first class is small enough.
    records = [(0, large.getvalue()), (1, encoded(1, "BMP")), (2, encoded(2)), (0, encoded(0))]
    assert write(records) == {"cat.png": encoded(0)}


def test_without_an_image_nothing_is_written(write, tmp_path):
    assert write([(1, encoded(1, "BMP"))]) == {}
    assert not (tmp_path / "model").exists()
