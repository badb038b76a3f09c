import numpy as np
import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.data_gate import gate
from components.data_gate.observations import Observations
from datasets.duplicates import Findings, Member
from settings.data_gate import DataGateConfig

CLASSES = ("cat", "dog")


def _leaked(test_images):
    """Returns findings in which one of some test images is also in train, and one val image, too."""
    return Findings(
        images={"test": test_images, "val": 4, "train": 20},
        leaked=[
            [Member("val", 0, "v.png"), Member("train", 0, "w.png")],
            [Member("test", 0, "a.png"), Member("train", 1, "b.png"), Member("train", 1, "c.png")],
        ],
        leaked_images={("test", "train"): 1, ("val", "train"): 1},
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


def test_an_image_of_another_size_is_a_problem_unless_images_are_resized():
    seen = Observations(examples=2, other_sizes=1, other_size="'some/name.png' is 6x4")
    assert gate.check_images("train", seen, (8, 8)) == [
        "train: image: 1 of 2 images are not 8x8 pixels (for example, 'some/name.png' is 6x4); "
        "resize all images with --set model.image_size=SIDE"
    ]
    assert gate.check_images("train", seen, None) == []


def test_an_empty_split_is_a_problem():
    assert gate.check_images("test", Observations(), (8, 8)) == [
        "test: the split has no examples; every split needs at least one"
    ]


def test_too_few_val_images_for_sets_of_classes_are_a_problem():
    assert gate.check_val(19, 19) == gate.check_val(1, 1) == []
    (problem,) = gate.check_val(18, 19)
    assert problem.startswith("val: export.prediction_set needs at least 19 images, found 18; fewer cannot")
    assert gate.check_val(0, 19) == []  # `check_images` has a line about it


def test_a_test_image_that_is_also_in_train_is_a_problem_and_says_what_to_do():
    (problem,), (warning,) = gate.check_duplicates(_leaked(test_images=8), CLASSES, DataGateConfig())
    assert problem.startswith("1 of 8 test images (12.50%) is also in train")
    assert "'a.png' (test, cat) is equal to 'b.png' (train, dog)" in problem
    assert "v.png" not in problem
    assert "At most 0.00% are allowed" in problem
    for advice in ("datasets.deduplication", "datasets.corrections", "--set data_gate.max_leaked_fraction="):
        assert advice in problem
    assert warning.startswith("1 of 4 val images (25.00%) is also in train")
    assert "'v.png' (val, cat) is equal to 'w.png' (train, cat)" in warning


@pytest.mark.parametrize(("share", "stops"), [(0.124, True), (0.125, False)])
def test_the_allowed_share_of_leaked_test_images_is_a_setting(share, stops):
    limits = DataGateConfig(max_leaked_fraction=share)
    problems, warnings = gate.check_duplicates(_leaked(test_images=8), CLASSES, limits)
    assert (len(problems), len(warnings)) == ((1, 1) if stops else (0, 2))


@pytest.mark.parametrize(("images", "stops"), [(199, True), (200, False)])
def test_one_image_in_a_hundred_may_have_another_label_elsewhere(images, stops):
    group = [Member("train", 0, "a.png"), Member("train", 0, "b.png"), Member("train", 1, "c.png")]
    findings = Findings(images={"train": images}, contradictions=[group], contradicting_images=2)
    problems, warnings = gate.check_duplicates(findings, CLASSES, DataGateConfig())
    (line,) = problems if stops else warnings
    assert len(problems) == stops
    assert line.startswith(f"2 of {images} images (1.0")
    assert "'a.png' (train, cat) is equal to 'c.png' (train, dog)" in line


def test_near_duplicates_are_a_warning():
    findings = Findings(images={"test": 5, "train": 9}, near_count=3, near_images={("test", "train"): 2})
    assert gate.check_duplicates(findings, CLASSES, DataGateConfig()) == (
        [],
        [
            "3 pairs of near-duplicates, which the report shows; "
            "2 of 5 test images (40.00%) are nearly equal to an image in train"
        ],
    )


def test_clean_data_has_neither_problems_nor_warnings():
    counts = {split: np.array([3, 1]) for split in ("train", "val", "test")}
    assert gate.check_classes(counts, CLASSES, DataGateConfig()) == ([], [])
    findings = Findings(images={"test": 4, "train": 4}, repeated=2)
    assert gate.check_duplicates(findings, CLASSES, DataGateConfig()) == ([], [])


def test_a_class_with_test_images_needs_training_images_unless_that_is_allowed():
    counts = {"train": np.array([3, 0]), "val": np.array([1, 0]), "test": np.array([0, 2])}
    problems, warnings = gate.check_classes(counts, CLASSES, DataGateConfig())
    assert len(problems) == len(warnings) == 1
    assert problems[0].startswith("these classes have val or test images, but no training images: dog. ")
    assert warnings[0].endswith("have no test images: cat")
    allowed = DataGateConfig(allow_untrained_classes=True)
    problems, warnings = gate.check_classes(counts, CLASSES, allowed)
    assert (len(problems), len(warnings)) == (0, 2)


def test_a_class_without_any_image_is_a_warning():
    counts = {split: np.array([1, 0]) for split in ("train", "val", "test")}
    problems, warnings = gate.check_classes(counts, CLASSES, DataGateConfig())
    assert not problems
    assert warnings == [
        "the model cannot learn these classes, which have no images at all: dog",
        "nothing is measured of these classes, which have no test images: dog",
    ]
