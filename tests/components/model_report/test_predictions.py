import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from components.model_report import predictions
from components.model_report.predictions import Predictions

NAMES = [
    "<script>",
    "Straßenbäume & Büsche",
    'cost in $ | `x` "y" \\',
    "猫 🐈",
    " ",
    "n" * 60,
]


@pytest.fixture
def original():
    """Twenty predictions whose probabilities use the full precision of a float32."""
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(len(NAMES)), 20).astype(np.float32)
    probabilities[0] = [1, *np.nextafter(np.float32(0), np.float32([1] * 5))]
    ids = ["", "a/b ü\n", *(f"test/{i}" for i in range(18))]
    return Predictions(ids, generator.integers(0, len(NAMES), 20), probabilities)


def test_reading_returns_what_was_written(original, tmp_path):
    predictions.write(original, NAMES, tmp_path / "a.parquet")
    read, names = predictions.read(tmp_path / "a.parquet")
    assert names == NAMES
    assert read.ids == original.ids
    assert (read.labels.dtype, read.probabilities.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(read.labels, original.labels)
    np.testing.assert_array_equal(read.probabilities, original.probabilities)
    np.testing.assert_array_equal(read.predicted, original.predicted)


def test_repeated_ids_are_numbered():
    assert predictions.number_repeats(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]


def test_the_file_is_a_plain_table(original, tmp_path):
    predictions.write(original, NAMES, tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table == {
        "id": original.ids,
        "label": original.labels.tolist(),
        "prediction": original.probabilities.argmax(axis=1).tolist(),
        "probabilities": original.probabilities.tolist(),
    }


def test_the_first_of_equally_probable_classes_is_predicted():
    tied = Predictions(["a", "b"], np.array([0, 1]), np.float32([[0.2, 0.4, 0.4], [0.5, 0.0, 0.5]]))
    assert tied.predicted.tolist() == [1, 0]


def test_a_file_without_class_names_is_refused(tmp_path):
    parquet.write_table(pa.table({"id": ["a"], "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="expected the class names in the file's metadata, found none"):
        predictions.read(tmp_path / "a.parquet")


@pytest.mark.parametrize("length", [0, 3, 700, -1])
def test_a_truncated_file_is_refused(original, tmp_path, length):
    path = tmp_path / "a.parquet"
    predictions.write(original, NAMES, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"(?i)parquet"):
        predictions.read(path)
