import io
import re
from collections import Counter

import numpy as np
import PIL.Image
import pytest

from datasets import directory, shapes
from datasets.directory import DatasetError


def test_the_dataset_has_all_classes_and_the_requested_number_of_images(tiny_dataset, read_split):
    assert tiny_dataset == directory.read(tiny_dataset.path)
    assert tiny_dataset.image_size == (32, 32)
    assert len(tiny_dataset.class_names) == 10
    assert {"circle", "square", "triangle"} < set(tiny_dataset.class_names)
    for split, count in {"train": 16, "val": 4, "test": 4}.items():
        examples = read_split(tiny_dataset.path, split)
        assert Counter(label for _, label in examples.values()) == dict.fromkeys(range(10), count)
        assert f"{split}_00000" in examples


def test_images_differ_between_splits(tiny_dataset, read_split):
    images = [
        image for split in directory.SPLITS for image, _ in read_split(tiny_dataset.path, split).values()
    ]
    assert len(set(images)) == 240
    with PIL.Image.open(io.BytesIO(images[0])) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))


def test_the_same_seed_gives_the_same_bytes(tmp_path, contents):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        shapes.convert(tmp_path / name, train=20, val=10, test=10, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_additional_images_do_not_change_the_first_ones(tmp_path, read_split):
    shapes.convert(tmp_path / "few", train=10, val=10, test=10)
    shapes.convert(tmp_path / "more", train=30, val=10, test=10)
    assert read_split(tmp_path / "few", "train").items() <= read_split(tmp_path / "more", "train").items()


def test_draw_depends_only_on_its_random_generator():
    image, same_seed, other_seed = (shapes.draw("star", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, same_seed)
    assert (image != other_seed).any()


def test_refuses_an_empty_split(tmp_path):
    with pytest.raises(DatasetError, match="at least one image in the test split"):
        shapes.convert(tmp_path / "data", train=10, val=10, test=0)


def test_the_command_ends_with_the_summary(tmp_path, capsys):
    shapes.prepare(tmp_path / "data", train=20, val=10, test=10)
    out = capsys.readouterr().out
    assert re.search(r"star +2 +1 +1 +4\s", out)
    assert re.search(r"formats +40 PNG", out)
    assert "all 32x32 pixels" in out
