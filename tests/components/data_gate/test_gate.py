import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.data_gate import gate


def _png(height=8, width=8):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _example(image, name=b"some/name.png"):
    def feature(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    return tf.train.Example(
        features=tf.train.Features(feature={"image": feature(image), "id": feature(name)})
    ).SerializeToString()


@pytest.fixture
def write(tmp_path):
    def write_records(records, name="records.gz"):
        path = str(tmp_path / name)
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for record in records:
                writer.write(record)
        return [path]

    return write_records


def test_valid_images_are_counted(write):
    counts, problems = gate.check_images({"train": write([_example(_png())] * 5)}, (8, 8))
    assert (counts, problems) == ({"train": 5}, [])


def test_an_image_that_cannot_be_decoded_is_named(write):
    truncated = _example(_png()[:-20], b"cats/7.png")
    counts, problems = gate.check_images({"val": write([_example(_png()), truncated])}, (8, 8))
    assert counts == {"val": 2}
    (problem,) = problems
    assert problem.startswith("val: image: example 'cats/7.png' cannot be decoded: ")


def test_an_image_of_another_size_is_a_problem_unless_images_are_resized(write):
    files = {"train": write([_example(_png()), _example(_png(4, 6))])}
    _, problems = gate.check_images(files, (8, 8))
    assert problems == [
        "train: image: 1 of 2 images are not 8x8 pixels (for example, 'some/name.png' is 6x4); "
        "resize all images with --set model.image_size=SIDE"
    ]
    assert gate.check_images(files, None) == ({"train": 2}, [])


def test_an_empty_split_is_a_problem(write):
    assert gate.check_images({"test": write([])}, (8, 8)) == (
        {"test": 0},
        ["test: the split has no examples; every split needs at least one"],
    )


def test_anomalies_are_described_with_split_feature_and_reason():
    anomalies = anomalies_pb2.Anomalies()
    reason = anomalies.anomaly_info["label"].reason.add()
    reason.short_description, reason.description = "Out-of-range values", "Unexpectedly high value: 12."
    lines = gate.describe_anomalies({"train": anomalies, "val": anomalies_pb2.Anomalies()})
    assert lines == ["train: label: Out-of-range values: Unexpectedly high value: 12."]


def test_a_long_list_of_problems_is_truncated_and_counted():
    gate.raise_if_any([])
    with pytest.raises(gate.DataAnomaliesError) as error:
        gate.raise_if_any([f"problem {i}" for i in range(25)])
    assert "problem 9" in str(error.value)
    assert "problem 10" not in str(error.value)
    assert "... and 15 more" in str(error.value)
