import dataclasses
import io

import PIL.Image
import pytest

from datasets import summary
from datasets.duplicates import Findings, Member, NearPair
from datasets.summary import Facts


def _facts(**changes) -> Facts:
    facts = Facts(
        class_names=("cat", "[b]dog"),
        splits=["train", "train", "train", "val", "test", "test"],
        labels=[0, 0, 1, 1, 0, 1],
        widths=[10, 20, 30, 40, 50, 60],
        heights=[10] * 6,
        formats={("JPEG", "keep"): 4, ("WEBP", "convert"): 2},
        scalings=[],
        unusable=[],
        ignored={},
        findings=Findings(),
    )
    return dataclasses.replace(facts, **changes)


def _show(facts, capsys) -> str:
    summary.show(facts, "/data/x")
    return capsys.readouterr().out


def _lines(facts, capsys) -> str:
    return " ".join(_show(facts, capsys).split())


def test_images_are_counted_by_class_and_split(capsys):
    rows = [line.split() for line in _show(_facts(), capsys).splitlines()]
    assert rows[0] == ["/data/x:", "2", "classes,", "6", "images"]
    assert ["cat", "2", "0", "1", "3"] in rows
    assert ["[b]dog", "1", "1", "1", "3"] in rows
    assert ["all", "3", "1", "2", "6"] in rows


def test_many_classes_are_cut(capsys):
    names = [f"class {i}" for i in range(30)]
    printed = _show(_facts(class_names=names, labels=[0, 1, 20, 21, 22, 29]), capsys)
    assert "class 19" in printed
    assert "class 20" not in printed
    assert "10 more classes 1 1 2 4" in " ".join(printed.split())


def test_formats_and_sizes(capsys):
    printed = _lines(_facts(), capsys)
    assert "4 JPEG stored as they are, 2 WEBP converted to PNG" in printed
    assert "smallest 10x10, median 40x10, largest 60x10 pixels" in printed
    printed = _lines(_facts(widths=[10] * 6), capsys)
    assert "all 10x10 pixels" in printed
    assert "advice" not in printed


def test_upright_and_wide_images_of_the_same_area_have_different_sizes(capsys):
    printed = _lines(_facts(widths=[40, 60] * 3, heights=[60, 40] * 3), capsys)
    assert "smallest 40x60, median 60x40, largest 60x40 pixels" in printed
    assert "the network needs images of one size" in printed


@pytest.mark.parametrize(("side", "size"), [(20, 32), (100, 96), (1200, 224)])
def test_an_image_size_is_proposed(capsys, side, size):
    facts = _facts(widths=[side + i for i in range(6)], heights=[side] * 6)
    assert f"--set model.image_size={size}" in _lines(facts, capsys)


def test_large_images_of_one_size_need_a_smaller_one(capsys):
    facts = _facts(widths=[1600] * 6, heights=[1200] * 6)
    assert "--set model.image_size=224" in _lines(facts, capsys)


def test_what_was_left_out_is_named(capsys):
    facts = _facts(
        unusable=[("a.png", "empty file")] * 5,
        ignored={"files that are no images, .txt": 7, "broken links": ["x", "y"]},
        scalings=["values from 0 to 4095 (12 bits) divided by 16"],
    )
    printed = _lines(facts, capsys)
    assert "unusable 5 images: a.png, a.png, a.png, and 2 more" in printed
    assert "ignored files that are no images, .txt: 7" in printed
    assert "ignored broken links: 2 (x, y)" in printed
    assert "depth more than 8 bits a colour: values from 0 to 4095 (12 bits) divided by 16" in printed


def _findings() -> Findings:
    train, test = Member("train", 0, "t/1.png", 0), Member("test", 1, "e/1.png", 5)
    return Findings(
        images={"train": 3, "val": 1, "test": 2},
        leaked=[[test, train]],
        contradictions=[[test, train]],
        repeated=3,
        near=[NearPair(test, train, 0.05)],
        near_count=12,
        leaked_images={("test", "train"): 1},
        near_images={("test", "train"): 2},
        contradicting_images=2,
    )


def test_duplicates_are_counted_and_named(capsys):
    printed = _lines(_facts(findings=_findings()), capsys)
    assert "3 images are equal to another one of the same split and class" in printed
    assert "1 of 2 test images are also in train" in printed
    assert "e/1.png = t/1.png" in printed
    assert "2 images are equal to one with another label: e/1.png ([b]dog) = t/1.png (cat)" in printed
    assert "12 pairs of nearly equal images (2 test images have one in train): e/1.png ~ t/1.png" in printed
    assert "and 11 more" in printed


def test_the_page_shows_the_summary_and_images(tmp_path):
    png = io.BytesIO()
    PIL.Image.new("RGB", (300, 200), "red").save(png, "PNG")
    facts = _facts(class_names=("cat", "<b>dog\udcff"), findings=_findings())
    summary.write_html(facts, "/data/x", tmp_path / "page.html", lambda position: png.getvalue())
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "&lt;b&gt;dog\\udcff" in page
    assert "<b>" not in page
    # Three training images, a leak, a contradiction and a pair of two images each.
    assert page.count('src="data:image/png;base64,') == 3 + 2 + 2 + 2
    assert "http" not in page
    assert "1 of 12 pairs" in page
