"""Tests the rendered photographs, which stand for those of a user."""

from __future__ import annotations

import math
import random

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from scripts import render_photos

ORIENTATION = 0x0112  # EXIF tag


def test_there_are_forty_classes_with_pictures_that_differ():
    assert len(set(render_photos.CLASSES)) == 40
    pictures = [render_photos.render("striped star", random.Random(seed)) for seed in (0, 0, 1)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    assert pictures[0].tobytes() != pictures[2].tobytes()


def test_sizes_and_proportions():
    sizes = {render_photos.render("plain ball", random.Random(seed)).size for seed in range(12)}
    assert len(sizes) > 8
    assert all(200 <= max(size) <= 1600 for size in sizes)
    assert len({round(width / height, 1) for width, height in sizes}) >= 4


@pytest.mark.parametrize("shape", render_photos.SHAPES)
def test_every_shape_fills_a_part_of_the_unit_circle(shape):
    y, x = np.mgrid[-1.2:1.2:240j, -1.2:1.2:240j]
    inside = render_photos.SHAPES[shape](x, y) > 0
    assert not inside[np.hypot(x, y) > 1.02].any()
    assert 0.15 < inside.sum() / (np.hypot(x, y) < 1).sum() < 0.9


def test_pictures_stored_rotated_are_upright_with_their_exif(tmp_path):
    file = render_photos.write(tmp_path, "checked moon", 3, seed=0, formats=("rotated.jpg",))
    assert file.parent.name == "checked moon"
    upright = render_photos.render("checked moon", random.Random("0 checked moon 3"))
    with PIL.Image.open(file) as stored:
        assert stored.getexif()[ORIENTATION] in (3, 6, 8)
        turned = PIL.ImageOps.exif_transpose(stored)
    assert turned.size == upright.size
    difference = np.asarray(turned, float) - np.asarray(upright, float)
    assert math.sqrt((difference**2).mean()) < 16  # JPEG of a picture with noise


def test_all_formats_are_written(tmp_path):
    render_photos.write_all(tmp_path, classes=2, per_class=12, seed=0)
    files = sorted(tmp_path.glob("*/*"))
    assert len(files) == 24
    assert {file.suffix for file in files} == {".jpg", ".png", ".webp"}
    for file in files:
        with PIL.Image.open(file) as picture:
            picture.load()
