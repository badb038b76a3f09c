import pytest

from settings import loading
from settings.base import ConfigError
from settings.evaluation import EvaluationConfig


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluation.min_class_recall=1.1", "min_class_recall: input should be less than or equal to 1"),
        # No number of images gives a confidence of 1.
        (
            "evaluation.min_confidence_above_guessing=1",
            "min_confidence_above_guessing: input should be less than 1",
        ),
        (
            "evaluation.slices=[contrast, contrast]",
            "evaluation.slices: expected each value once; found ['contrast', 'contrast']",
        ),
        ("evaluation.slices=contrast", "evaluation.slices: expected a list"),
        ("evaluation.corruptions=false", "evaluation.corruptions: input should be a valid integer"),
    ],
)
def test_invalid_settings_are_refused(error_message, override, expected):
    assert expected in error_message(override)


def test_all_gates_except_the_lowest_accuracy_can_be_switched_off():
    names = [
        name
        for name in EvaluationConfig.model_fields
        if name.startswith(("min_", "max_")) and name != "min_accuracy"
    ]
    assert len(names) == 10
    evaluation = loading.load(overrides=[f"evaluation.{name}=null" for name in names]).evaluation
    assert [getattr(evaluation, name) for name in names] == [None] * 10
    with pytest.raises(ConfigError, match="min_accuracy: input should be a valid number; found null"):
        loading.load(overrides=["evaluation.min_accuracy=null"])


def test_slices_are_properties_of_the_image_or_features_in_the_schema():
    loading.load().evaluation.check_slices([])
    evaluation = loading.load(overrides=["evaluation.slices=[contrast, camera]"]).evaluation
    evaluation.check_slices(["label", "camera"])
    message = "expected some of brightness, contrast, label; found 'camera'. To slice .* schema.pbtxt"
    with pytest.raises(ConfigError, match=message):
        evaluation.check_slices(["label"])
    loading.load(overrides=["evaluation.slices=[]"]).evaluation.check_slices([])


def test_the_gate_on_corrupted_images_needs_corrupted_images():
    overrides = ["evaluation.min_corrupted_accuracy=0.5", "evaluation.corruptions=0"]
    assert loading.load(overrides=overrides[:1]).evaluation.corruptions == 500
    with pytest.raises(ConfigError, match="expected corruptions above 0, found 0"):
        loading.load(overrides=overrides)
