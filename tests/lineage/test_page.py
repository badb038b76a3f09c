import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lineage.__main__ import app
from tests.browser import SIZES, check_layout, visit
from tests.lineage.conftest import FIRST, LAST, PLANS, WORSE


@pytest.fixture(scope="module")
def page(root, tmp_path_factory) -> Path:
    """The page about all runs."""
    file = tmp_path_factory.mktemp("page") / "runs.html"
    result = CliRunner().invoke(app, ["page", "--root", str(root), "--out", str(file)])
    assert result.exit_code == 0, result.output
    assert str(file) in result.output
    return file


@pytest.mark.parametrize("size", SIZES)
def test_the_page_sorts_filters_and_leads_to_a_run(chromium, page, ids, size):
    with visit(chromium, page, size) as shown:
        check_layout(shown)
        shown.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false })")
        rows = shown.locator("#runs tbody tr")
        assert rows.count() == len(PLANS)
        assert rows.first.get_by_role("link").inner_text() == ids[LAST]
        accuracy = shown.locator("#runs th", has_text=re.compile(r"^accuracy$")).get_by_role("button")
        accuracy.click()
        assert rows.first.get_by_role("link").inner_text() == ids[WORSE]
        accuracy.click()
        assert rows.first.get_by_role("link").inner_text() == ids[LAST]
        shown.get_by_role("searchbox").fill("shapes complete")
        assert rows.locator("visible=true").count() == 2
        # Points of the chart lead to the card of their run, by keyboard too.
        point = shown.get_by_label(f"{ids[FIRST]}: accuracy 0.8000, pushed")
        point.focus()
        shown.keyboard.press("Enter")
        card = shown.locator(f'[id="run-{ids[FIRST]}"][open]')
        card.wait_for()
        assert "trainer.epochs" in card.inner_text()
        assert card.locator("svg a").count() >= len(("examples", "model", "report"))
        assert shown.locator("polyline").count() == 3


@pytest.mark.parametrize("size", SIZES)
def test_the_graph_of_a_model_leads_to_the_facts_of_each_node(chromium, root, ids, tmp_path, size):
    file = tmp_path / "tree.html"
    result = CliRunner().invoke(app, ["tree", ids[WORSE], "--html", str(file), "--root", str(root)])
    assert result.exit_code == 0, result.output
    with visit(chromium, file, size) as shown:
        check_layout(shown)
        shown.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false })")
        nodes = shown.locator("svg a")
        texts = nodes.all_text_contents()
        assert {"Trainer", "Transform", "ImportExampleGen", "Evaluator"} <= set(texts)
        assert shown.locator("svg a.chosen").count() == 1
        # On a phone, the graph is wider than the window, and shows its middle first.
        assert (shown.evaluate("document.querySelector('.graphs').scrollLeft") > 0) == (size == "phone")
        assert shown.evaluate(
            "[...document.querySelectorAll('svg a')].every(node => "
            "node.querySelector('text').getComputedTextLength() "
            "< node.querySelector('rect').width.baseVal.value)"
        )
        trainer = nodes.filter(has_text="Trainer").first
        trainer.focus()
        shown.keyboard.press("Enter")
        opened = shown.locator("details[open]")
        opened.wait_for()
        assert opened.count() == 1
        assert "5 (--set)" in opened.inner_text()


def test_a_page_that_cannot_be_written_is_a_sentence(root):
    result = CliRunner().invoke(app, ["page", "--root", str(root), "--out", "/nowhere/page.html"])
    assert result.exit_code == 1
    assert result.stderr == "error: /nowhere/page.html: No such file or directory\n"
