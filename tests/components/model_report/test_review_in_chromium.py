"""Reviews labels on the page of a report in Debian's Chromium, from a choice to the downloaded file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components.model_report import page
from tests.browser import SIZES, check_layout, visit
from tests.components import samples

REPORT = samples.report(10)
CAT, HOSTILE, MONEY = (each["name"] for each in REPORT["classes"][:3])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return _write(REPORT, tmp_path_factory.mktemp("review") / "index.html")


def _write(report: dict, path: Path) -> Path:
    html = page.render_html(report, samples.figures(), samples.pictures(report))
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(params=SIZES)
def shown(request, chromium, file):
    with visit(chromium, file, request.param) as shown:
        yield shown


def _images(shown, id_: str, split: str = "test"):
    """Returns the choices of an image, in each list that shows it."""
    return shown.locator(f'.review[data-id="{id_}"][data-split="{split}"]')


def _unfold(shown) -> None:
    shown.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")


def _download(shown) -> dict:
    with shown.expect_download() as download:
        shown.get_by_role("button", name="Download corrections.json").click()
    assert download.value.suggested_filename == "corrections.json"
    return json.loads(Path(download.value.path()).read_text(encoding="utf-8"))


def test_choices_become_a_file(shown):
    bar = shown.get_by_role("complementary", name="Corrections")
    assert "No image is reviewed yet." in bar.inner_text()
    assert not bar.get_by_role("button").is_visible()
    _unfold(shown)
    right = shown.get_by_role("group", name=f"Image test/00002 of test, labelled {MONEY}").last
    right.get_by_label("right", exact=True).check()
    assert "1 image reviewed: 1 right, 0 wrong, 0 to leave out." in bar.inner_text()
    # The label that the model suggests is preselected, and can be changed.
    labels = shown.locator("section:has(> #labels)")
    suggested = _images(labels, "test/00000")
    suggested.get_by_label("wrong").check()
    assert suggested.get_by_label("The right class").input_value() == HOSTILE
    changed = _images(labels, "test/00003")
    changed.get_by_label("wrong").check()
    changed.get_by_label("The right class").select_option("class 7")
    _images(shown, "train/cat & co/00000.png", "train").get_by_label("leave out").check()
    _images(shown, "train/cat & co/00040.png", "train").get_by_label("wrong").check()
    assert "5 images reviewed: 1 right, 3 wrong, 1 to leave out." in bar.inner_text()
    check_layout(shown)

    assert _download(shown) == {
        "format": "corrections/1",
        "corrections": [
            {"id": "test/00002", "split": "test", "action": "keep"},
            {"id": "test/00000", "split": "test", "action": "relabel", "label": HOSTILE},
            {"id": "test/00003", "split": "test", "action": "relabel", "label": "class 7"},
            {"id": "train/cat & co/00000.png", "split": "train", "action": "remove"},
            {"id": "train/cat & co/00040.png", "split": "train", "action": "relabel", "label": HOSTILE},
        ],
    }
    assert "python -m datasets.corrections DATA corrections.json NEW_DATA" in bar.inner_text()
    assert "python local_runner.py --data NEW_DATA" in bar.inner_text()


def test_lists_that_show_the_same_image_agree_and_a_choice_can_be_undone(shown):
    _unfold(shown)
    mistake, label_error = _images(shown, "test/00001").all()
    mistake.get_by_label("leave out").check()
    assert label_error.get_by_label("leave out").is_checked()
    label_error.get_by_role("button", name="undo").click()
    assert not mistake.get_by_label("leave out").is_checked()
    assert "No image is reviewed yet." in shown.get_by_role("status").inner_text()


def test_a_wrong_label_needs_its_class_before_the_download(shown):
    # Of equal images with equal labels in two splits, no other class can be suggested.
    image = _images(shown, "train/cat & co/00020.png", "train")
    _unfold(shown)
    image.get_by_label("wrong").check()
    shown.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false })")
    assert "1 of them still needs its right class." in shown.get_by_role("status").inner_text()
    shown.get_by_role("button", name="Download corrections.json").click()
    select = image.get_by_label("The right class")
    assert select.evaluate("select => select === document.activeElement")
    assert select.locator("option").all_inner_texts() == [
        "choose a class",
        *(each["name"] for each in REPORT["classes"] if each["name"] != CAT),
    ]
    select.select_option("class 9")
    assert [entry["label"] for entry in _download(shown)["corrections"]] == ["class 9"]


def test_choices_outlast_a_reload_and_stay_with_their_report(chromium, file, tmp_path):
    changing = tmp_path / "index.html"
    shutil.copy(file, changing)
    with visit(chromium, changing, "desktop") as shown:
        labels = shown.locator("section:has(> #labels)")
        _images(labels, "test/00000").get_by_label("wrong").check()
        shown.reload()
        assert "1 image reviewed: 0 right, 1 wrong" in shown.get_by_role("status").inner_text()
        assert _images(labels, "test/00000").get_by_label("The right class").input_value() == HOSTILE
        _write({**REPORT, "name": "another"}, changing)
        shown.reload()
        assert "No image is reviewed yet." in shown.get_by_role("status").inner_text()


def test_without_storage_the_page_works_until_it_is_closed(chromium, file):
    with visit(chromium, file, "desktop") as shown:
        shown.add_init_script(
            "Object.defineProperty(window, 'localStorage',"
            " { get() { throw new DOMException('', 'SecurityError') } })"
        )
        shown.reload()
        image = _images(shown.locator("section:has(> #labels)"), "test/00000")
        image.get_by_label("leave out").check()
        assert [entry["action"] for entry in _download(shown)["corrections"]] == ["remove"]


def test_choosing_works_by_keyboard(shown):
    first = shown.locator(".review input").first
    first.focus()
    shown.keyboard.press("Space")
    assert first.is_checked()
    shown.keyboard.press("ArrowDown")
    fields = shown.locator(".review fieldset").first
    assert fields.get_by_label("wrong").is_checked()
    shown.keyboard.press("Tab")
    assert fields.locator("select").evaluate("select => select === document.activeElement")
    shown.get_by_role("link", name="At the end of the page").press("Enter")
    assert shown.evaluate("document.activeElement.id") == "corrections"
    shown.keyboard.press("Tab")
    with shown.expect_download():
        shown.keyboard.press("Enter")


def test_the_bar_does_not_hide_what_has_the_focus(shown):
    _unfold(shown)
    _images(shown, "test/00001").last.get_by_label("right", exact=True).check()
    bar = shown.get_by_role("complementary", name="Corrections")
    for place in shown.locator(".review input").all()[:60]:
        place.focus()
        box = place.bounding_box()
        assert box["y"] + box["height"] <= bar.bounding_box()["y"]


def test_reviewing_is_not_printed(shown):
    shown.emulate_media(media="print")
    assert not shown.locator(".review, .corrections").locator("visible=true").count()
