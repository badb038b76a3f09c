import numpy as np
import pytest

from datasets import depth
from datasets.depth import ValueRange


@pytest.mark.parametrize(
    ("high", "values", "expected"),
    [
        (255, [0, 7, 255], [0, 7, 255]),
        (3, [0, 3], [0, 3]),  # labels or masks keep their values
        (256, [0, 1, 256], [0, 0, 128]),
        (4095, [0, 16, 4095], [0, 1, 255]),
        (65535, [255, 256, 65535], [0, 1, 255]),
        (2**20 - 1, [2**19], [128]),
    ],
)
def test_integers_lose_the_bits_that_do_not_fit(high, values, expected):
    scaled = ValueRange("integer", 0, high).to_uint8(np.array(values, np.int64))
    assert scaled.dtype == np.uint8
    assert scaled.tolist() == expected


@pytest.mark.parametrize(
    ("low", "high", "kind", "values", "expected"),
    [
        (0.2, 0.8, "float", [0.2, 0.5, 0.8], [51, 128, 204]),
        (0, 4, "float", [0, 1, 4], [0, 64, 255]),
        (-1, 1, "float", [-1, 0, 1], [0, 128, 255]),
        (-1024, 3071, "integer", [-1024, 3071], [0, 255]),
        (-5, -5, "integer", [-5], [0]),
    ],
)
def test_floats_and_negative_integers_are_scaled(low, high, kind, values, expected):
    dtype = np.float32 if kind == "float" else np.int32
    assert ValueRange(kind, low, high).to_uint8(np.array(values, dtype)).tolist() == expected


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (ValueRange("integer", 1, 4088), "values from 1 to 4088 (12 bits) divided by 16"),
        (ValueRange("integer", 0, 200), "values from 0 to 200 (8 bits) kept"),
        (ValueRange("float", 0, 0.5), "values from 0 to 0.5 multiplied by 255"),
        (ValueRange("float", -2, 3), "values from -2 to 3 scaled to 0 to 255"),
    ],
)
def test_the_scaling_is_described(values, text):
    assert values.describe() == text


def test_ranges_are_measured_and_joined():
    one = depth.measure(np.array([[3, 9]], np.uint16))
    assert one == ValueRange("integer", 3, 9)
    assert one.union(depth.measure(np.array([[1]], np.int32))) == ValueRange("integer", 1, 9)
    assert depth.measure(np.array([0.5], np.float32)).kind == "float"
    with pytest.raises(ValueError, match="not a number"):
        depth.measure(np.array([1, np.nan], np.float32))
