import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet
from tensorflow_serving.apis import prediction_log_pb2

from components.serving_check import examples, pushed_model, reference, warm_up
from tests.components.serving_check import brightness

VALUES = list(range(0, 250, 5))


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model = brightness.Brightness().save(folder / "exported")
    (folder / "exported" / "assets.extra").mkdir()
    (folder / "exported" / "assets.extra" / "labels.txt").write_text("dark\nbright\n")
    files = [brightness.write_examples(folder / "test.gz", VALUES)]
    pushed_model.write(model, str(folder / "pushed"), files, brightness.NAMES, {"problems": []})
    return folder


def test_the_pushed_model_has_the_files_of_the_exported_one_without_their_space(pushed):
    exported = [path for path in (pushed / "exported").rglob("*") if path.is_file()]
    assert len(exported) > 3
    for path in exported:
        assert (pushed / "pushed" / path.relative_to(pushed / "exported")).samefile(path)


def test_the_model_answers_every_request_of_the_warm_up(pushed):
    served = tf.saved_model.load(str(pushed / "pushed"))
    requests = []
    for record in tf.data.TFRecordDataset(str(pushed / "pushed" / warm_up.FILE)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        name = request.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        answer = served.signatures[name](**inputs)
        requests.append((name, len(answer["class_id"])))
        # The first example of the split is black.
        np.testing.assert_allclose(answer["probabilities"][:, 0], 1)
    signatures = ("serving_default", "serve_image_bytes", "serve_images")
    assert requests == [(name, size) for size in (1, 32) for name in signatures]


def test_an_image_of_each_class_is_there_to_try_the_model_with(pushed):
    folder = pushed / "pushed" / examples.FOLDER
    assert {path.stem for path in folder.iterdir()} == set(brightness.NAMES)


def test_the_reference_describes_the_test_split(pushed):
    table = parquet.read_table(pushed / "pushed" / reference.FILE)
    assert {field.name: field.type for field in table.schema} == {
        **dict.fromkeys(("brightness", "contrast", "sharpness", "confidence"), pa.float32()),
        "class_id": pa.int32(),
        "class_name": pa.string(),
        "label": pa.string(),
        "features": pa.list_(pa.float32(), 3),
    }
    rows = table.to_pandas()
    means = np.array(VALUES) / 255
    np.testing.assert_allclose(rows["brightness"], means, atol=1e-6)
    np.testing.assert_allclose(rows["sharpness"], 3 * means, atol=1e-6)
    np.testing.assert_allclose(rows["confidence"], np.maximum(means, 1 - means), atol=1e-6)
    np.testing.assert_allclose(np.stack(rows["features"])[:, 1], -means, atol=1e-6)
    assert rows["class_id"].tolist() == [int(value > 127) for value in VALUES]
    assert rows["class_name"].tolist() == rows["label"].tolist()


def test_a_large_split_is_described_by_the_same_random_sample_each_time(pushed):
    loaded = tf.saved_model.load(str(pushed / "exported"))
    files = [str(pushed / "test.gz")]
    first, second = (
        reference.describe(loaded, files, brightness.NAMES, (4, 4), rows=20)["brightness"].to_numpy() * 255
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert len(set(first.round())) == 20
    assert set(first.round()) <= set(VALUES)
    assert first.max() > 120  # not the first 20
