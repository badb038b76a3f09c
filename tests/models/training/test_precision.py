import keras
import numpy as np
import pytest
import tensorflow as tf

from models.training import precision


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 clzero\n", "mixed_bfloat16"),
        ("processor : 0\nflags\t\t: fpu amx_bf16 avx512f\n", "mixed_bfloat16"),
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16x\n", "float32"),
        ("model name : bf16\nflags\t\t: fpu avx2\n", "float32"),
    ],
)
def test_auto_is_bfloat16_if_the_cpu_supports_it(no_gpu, monkeypatch, tmp_path, cpu_info, expected):
    (tmp_path / "cpuinfo").write_text(cpu_info)
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "cpuinfo")
    assert precision.resolve("auto") == expected


def test_auto_is_float32_without_information_about_the_cpu(no_gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "none")
    assert precision.resolve("auto") == "float32"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [([(8, 0)], "mixed_bfloat16"), ([(9, 0), (7, 5)], "float32"), ([None], "float32")],
)
def test_auto_is_bfloat16_if_all_gpus_support_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: capabilities)
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda capability: {"compute_capability": capability} if capability else {},
    )
    assert precision.resolve("auto") == expected


@pytest.mark.parametrize("configured", ["float32", "mixed_bfloat16"])
def test_a_configured_precision_is_not_changed(configured):
    assert precision.resolve(configured) == configured


def test_in_float32_copies_the_weights_of_nested_mixed_precision_models():
    with precision.policy("mixed_bfloat16"):
        inner_input = keras.Input((6, 6, 3))
        inner = keras.Model(
            inner_input, keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inner_input))
        )
        inputs = keras.Input((6, 6, 3))
        model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inner(inputs))))
    assert keras.config.dtype_policy().name == "float32"
    copy = precision.in_float32(model)
    layers = copy._flatten_layers(include_self=False)
    assert {layer.compute_dtype for layer in layers} == {"float32"}
    for copied, weight in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(copied, weight)
    images = np.random.default_rng(0).random((4, 6, 6, 3), np.float32)
    mixed = tf.cast(model(images), tf.float32)
    assert copy(images).dtype == tf.float32
    assert 0 < np.abs(copy(images) - mixed).max() < 0.05
