import pytest

from datasets import class_labels
from datasets.directory import DatasetError


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ([3], 3),
        ([-1], -1),
        ([2.0], 2),
        ([b"cat"], "cat"),
        (["Käse".encode()], "Käse"),
        ([0, 0, 1], 2),
        ([1.0, 0.0], 0),
    ],
)
def test_a_label_is_an_integer_a_text_or_one_hot(values, label):
    assert class_labels.parse(values) == label


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "no value"),
        ([1.5], "the number 1.5"),
        ([float("nan")], "the number nan"),
        ([b"\xff"], "not UTF-8"),
        ([b" "], "an empty text"),
        ([0, 0, 0], "a list of 3 values that is not one-hot"),
        ([1, 0, 1], "not one-hot"),
        ([0.25, 0.75], "not one-hot"),
        ([0, 2], "not one-hot"),
        ([b"cat", b"dog"], "not one-hot"),
    ],
)
def test_other_values_are_no_label(values, message):
    with pytest.raises(ValueError, match=message):
        class_labels.parse(values)


def _number(labels, given=None):
    return class_labels.number({label: f"record {label}" for label in labels}, given)


def test_integers_are_named_after_their_labels():
    classes = _number([2, 0, 1])
    assert classes.names == ["class_0", "class_1", "class_2"]
    assert classes.index == {0: 0, 1: 1, 2: 2}
    assert classes.notes == ["the classes are named after their labels: class_0, class_1, class_2"]


def test_labels_from_1_are_noticed():
    classes = _number([1, 2, 3])
    assert classes.index == {1: 0, 2: 1, 3: 2}
    assert classes.names == ["class_1", "class_2", "class_3"]
    assert classes.notes[1] == "labels are 1 to 3: label 1 is class 0 of the dataset"
    classes = _number([1, 2, 3], ("cat", "dog", "fish"))
    assert classes.index == {1: 0, 2: 1, 3: 2}
    assert classes.names == ["cat", "dog", "fish"]
    assert classes.notes == ["labels are 1 to 3: label 1 is 'cat', class 0 of the dataset"]


def test_labels_with_gaps_are_noticed():
    classes = _number([10, 30, 20])
    assert classes.index == {10: 0, 20: 1, 30: 2}
    assert classes.notes[1] == "3 labels, from 10 to 30, occur: they are classes 0 to 2 of the dataset"


def test_texts_are_in_natural_order():
    classes = _number(["10", "2", "0", "1"])
    assert classes.names == ["0", "1", "2", "10"]
    assert classes.index == {"0": 0, "1": 1, "2": 2, "10": 3}
    assert classes.notes == []


def test_a_list_of_names_is_the_order_of_texts():
    assert _number(["cat", "dog"], ("dog", "cat")).names == ["dog", "cat"]


def test_names_without_examples_are_left_out():
    # The 1,001 classes of ImageNet: label 0 is the background, of which there is no image.
    classes = _number([1, 2], ("background", "cat", "dog"))
    assert classes.names == ["cat", "dog"]
    assert classes.index == {1: 0, 2: 1}
    assert classes.notes == ["1 class names without any example are left out: background"]


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        ([0, 3], ("a", "b", "c"), "record 3: expected a label of the 3 classes, from 0 to 2; found 3"),
        ([1, 4], ("a", "b", "c"), "record 4: .* from 0 to 2; found 4"),
        (["a", "d"], ("a", "b", "c"), "record d: expected a label of the 3 classes, a, b, c; found d"),
    ],
)
def test_labels_without_a_name_are_an_error(labels, given, message):
    with pytest.raises(DatasetError, match=message):
        _number(labels, given)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("0:cat\n1:dog\n", ("cat", "dog")),
        ("1:cat\n2:dog\n", ("1:cat", "2:dog")),
        ("0:cat\ndog\n", ("0:cat", "dog")),
    ],
)
def test_names_may_be_numbered(tmp_path, text, names):
    (tmp_path / "labels.txt").write_text(text)
    assert class_labels.read_names(tmp_path / "labels.txt") == names
