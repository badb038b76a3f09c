import pytest

from settings import loading
from settings.base import ConfigError
from settings.export import ExportConfig


def test_views_are_refused_where_left_and_right_matter():
    with pytest.raises(ConfigError, match=r"export\.views=2 shows the network mirror images"):
        loading.load((), ["export.views=2", "augmentation.flip=false"])


def test_two_views_are_refused_where_they_have_the_same_answer():
    with pytest.raises(ConfigError, match=r"export\.views=2 averages .* set export\.views to 1 or 6"):
        loading.load((), ["export.views=2", "model.cnn.mirrored_filters=true"])
    loading.load((), ["export.views=6", "model.cnn.mirrored_filters=true"])


def test_the_sets_of_classes_need_val_images():
    assert loading.load().export.fewest_val_images == 1
    for share, images in ((0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)):
        assert ExportConfig(prediction_set=share).fewest_val_images == images


def test_extra_views_need_more_than_one_view():
    with pytest.raises(ConfigError, match="extra_views_below needs views=2 or views=6"):
        loading.load((), ["export.extra_views_below=0.9"])


def test_the_trainer_depends_on_the_views_and_the_tuner_does_not():
    one = loading.load()
    six = loading.load((), ["export.views=6", "export.extra_views_below=0.9"])
    assert six.trainer_settings().export == ExportConfig(views=6, extra_views_below=0.9)
    assert six.tuner_settings() == one.tuner_settings()
    named = {"calibration": "none", "abstain_below": 0.6, "prediction_set": 0.95}
    unsure = loading.load((), [f"export.{name}={value}" for name, value in named.items()])
    assert unsure.trainer_settings().export == ExportConfig(**named)
    assert unsure.tuner_settings() == one.tuner_settings()
    formats = loading.load((), ["export.min_agreement=0.9"])
    assert formats.trainer_settings() == one.trainer_settings()
