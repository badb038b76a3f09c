import importlib.util

import pytest

from settings import loading
from settings.base import ConfigError


def _load(*overrides):
    return loading.load(overrides=overrides).export


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("export.formats=[tflite, coreml]", "export.formats: input should be 'tflite', 'tflite_int8' or"),
        ("export.formats=[onnx, onnx]", "export.formats: expected each value once"),
        ("export.min_agreement=99.5", "export.min_agreement: input should be less than or equal to 1"),
        ("export.min_agreement_int8=-1", "export.min_agreement_int8: input should be greater than or"),
    ],
)
def test_invalid_settings_are_refused(error_message, override, expected):
    assert expected in error_message(override)


def test_onnx_needs_its_packages(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else object())
    with pytest.raises(
        ConfigError, match=r"not installed: tf2onnx\. Install them with `uv sync .*--extra onnx`"
    ):
        _load("export.formats=[tflite, onnx]").check_packages()
    _load("export.formats=[tflite, tflite_int8]").check_packages()
    monkeypatch.undo()
    _load("export.formats=[onnx]").check_packages()


def test_formats_do_not_train_again():
    plain = loading.load().trainer_settings()
    settings = ["export.formats=[tflite]", "export.min_agreement=0.9", "export.min_agreement_int8=0.9"]
    assert loading.load(overrides=settings).trainer_settings() == plain


def test_integers_may_agree_less():
    export = _load("export.min_agreement=0.9", "export.min_agreement_int8=0.8")
    assert [export.min_agreement_of(name) for name in ("tflite", "tflite_int8", "onnx")] == [0.9, 0.8, 0.9]
