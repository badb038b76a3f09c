"""Opens the page of a report in Debian's Chromium."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from components.model_report import page
from tests.browser import SIZES, check_layout, visit
from tests.components import samples

REPORTS = {
    "ten": samples.report(10),
    "two, bare": samples.bare(samples.report(2)),
    "many": samples.report(200),
}


@pytest.fixture(scope="module", params=REPORTS)
def report(request):
    return REPORTS[request.param]


@pytest.fixture(scope="module")
def file(report, tmp_path_factory):
    pictures = samples.pictures(report) if report["most_confused"] else samples.no_pictures()
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(page.render_html(report, samples.figures(), pictures), encoding="utf-8")
    return path


@pytest.fixture(params=SIZES)
def shown(request, chromium, file):
    with visit(chromium, file, request.param) as shown:
        yield shown


def test_text_and_images_are_shown_and_fit_the_page(shown, report):
    text = shown.inner_text("body")
    assert ("✓ Blessed" if report["blessed"] else "✗ Not blessed") in text
    assert all(each["name"] in shown.text_content("main") for each in report["classes"])
    assert "{{" not in text
    check_layout(shown)
    assert Image.open(io.BytesIO(shown.screenshot())).size == tuple(shown.viewport_size.values())


def test_verdict_metrics_and_gates_fit_on_the_first_screen(shown):
    height = shown.viewport_size["height"]
    for selector in [
        ".verdict",
        ".key",
        "h3:text('Gates')",
        "h3:text('Compared with the last blessed model')",
    ]:
        box = shown.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] <= height, selector


def test_the_page_works_by_keyboard(shown):
    shown.keyboard.press("Tab")
    skip = shown.locator(".skip")
    assert skip.evaluate("link => link === document.activeElement")
    assert skip.bounding_box()["x"] >= 0
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.id") == "main"

    folded = shown.locator("main > section > details").first
    folded.locator("summary").focus()
    shown.keyboard.press("Enter")
    assert folded.evaluate("details => details.open")


def test_a_printed_page_is_unfolded_and_has_no_contents(shown):
    table = shown.locator("main > section > details table").first
    assert shown.locator("nav").is_visible()
    assert not table.is_visible()
    shown.emulate_media(media="print")
    assert not shown.locator("nav").is_visible()
    assert table.is_visible()
