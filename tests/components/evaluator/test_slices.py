import io

import numpy as np
import PIL.Image
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components.evaluator import slices
from models import durations


def bands(pixels, kind="PNG"):
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, kind)
    return tuple(slices.bands(buffer.getvalue())[name] for name in ("brightness", "contrast"))


def checkerboard(dark, bright):
    return np.where(np.indices((8, 8)).sum(axis=0) % 2, bright, dark)


@pytest.mark.parametrize(
    ("level", "brightness"),
    [
        (0, "0 to 0.25"),
        (63, "0 to 0.25"),
        (64, "0.25 to 0.5"),
        (127, "0.25 to 0.5"),
        (128, "0.5 to 0.75"),
        (191, "0.5 to 0.75"),
        (192, "0.75 to 1"),
        (255, "0.75 to 1"),
    ],
)
def test_a_uniform_image_has_a_brightness_and_no_contrast(level, brightness):
    assert bands(np.full((5, 7), level)) == (brightness, "0 to 0.1")
    assert bands(np.full((5, 7, 3), level)) == (brightness, "0 to 0.1")
    assert bands(np.full((5, 7, 3), level), "JPEG") == (brightness, "0 to 0.1")


@pytest.mark.parametrize(("white", "brightness"), [(1, "0.25 to 0.5"), (2, "0.5 to 0.75"), (3, "0.75 to 1")])
def test_an_edge_belongs_to_the_upper_band(white, brightness):
    assert bands([[255 * (i < white) for i in range(4)]])[0] == brightness


@pytest.mark.parametrize(
    ("dark", "bright", "contrast"),
    [
        # The standard deviation is half the difference: 0.098, 0.102, 0.198, 0.202, 0.298, 0.302, 0.5.
        (100, 150, "0 to 0.1"),
        (100, 152, "0.1 to 0.2"),
        (100, 201, "0.1 to 0.2"),
        (100, 203, "0.2 to 0.3"),
        (100, 252, "0.2 to 0.3"),
        (100, 254, "0.3 to 0.5"),
        (0, 255, "0.3 to 0.5"),
    ],
)
def test_contrast_is_the_standard_deviation_of_the_luma(dark, bright, contrast):
    assert bands(checkerboard(dark, bright))[1] == contrast


@pytest.mark.parametrize(
    ("color", "brightness"),
    # The luma of these colours is 76, 150 and 29 out of 255.
    [((255, 0, 0), "0.25 to 0.5"), ((0, 255, 0), "0.5 to 0.75"), ((0, 0, 255), "0 to 0.25")],
)
def test_brightness_is_the_luma_of_a_colour(color, brightness):
    assert bands(np.full((4, 4, 3), color)) == (brightness, "0 to 0.1")
    assert bands(np.full((4, 4, 4), (*color, 255))) == (brightness, "0 to 0.1")


def test_transparent_pixels_are_white_as_for_the_network():
    assert bands(np.full((4, 4, 4), (255, 0, 0, 0))) == ("0.75 to 1", "0 to 0.1")
    half_transparent_blue = np.dstack([np.full((8, 8, 3), (0, 0, 255)), checkerboard(0, 255)])
    assert bands(half_transparent_blue) == ("0.5 to 0.75", "0.3 to 0.5")


def test_16_bit_grey_images_are_decoded_as_for_the_network():
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((4, 4), 70 * 256 + 200, np.uint16)).save(buffer, "PNG")
    assert slices.bands(buffer.getvalue()) == {"brightness": "0.25 to 0.5", "contrast": "0 to 0.1"}


@pytest.mark.parametrize(
    ("specs", "needs_bands"),
    [
        ([config_pb2.SlicingSpec()], False),
        ([config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["label"])], False),
        ([config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["brightness"])], True),
        ([config_pb2.SlicingSpec(feature_keys=["label", "contrast"])], True),
    ],
)
def test_images_are_measured_only_if_slices_need_it(specs, needs_bands):
    config = config_pb2.EvalConfig(model_specs=[config_pb2.ModelSpec(label_key="label")], slicing_specs=specs)
    default = [extractor.stage_name for extractor in tfma.default_extractors(eval_config=config)]
    stages = [extractor.stage_name for extractor in slices.custom_extractors(None, config, None)]
    assert [name for name in stages if name not in ("AddBands", "Progress")] == default
    assert ("AddBands" in stages) == needs_bands
    if needs_bands:
        assert stages.index("ExtractFeatures") < stages.index("AddBands") < stages.index("ExtractSliceKeys")


def test_the_progress_is_logged_every_few_seconds(caplog, monkeypatch):
    monkeypatch.setattr(durations.time, "monotonic", iter([0.0, 2.0, 5.5, 7.0, 11.0]).__next__)
    step = slices._LogProgress()
    step.setup()
    batch = {tfma.FEATURES_KEY: {"image": np.array([b"a", b"b"])}}
    with caplog.at_level("INFO", logger="components"):
        for _ in range(4):
            assert list(step.process(batch)) == [batch]
    assert caplog.messages == ["evaluated 4 images, 1 images/s", "evaluated 8 images, 1 images/s"]
