import itertools
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lineage import drawing
from lineage.__main__ import app
from tests.browser import SIZES, check_layout, visit
from tests.lineage.conftest import FIRST, LAST, PLANS, WORSE
from tests.lineage.made_store import Plan, Store

# JavaScript for the places of all texts of the charts.
_BOXES = "[...document.querySelectorAll('.chart text')].map(each => each.getBoundingClientRect().toJSON())"


@pytest.fixture(scope="module")
def page(root, tmp_path_factory) -> Path:
    """The page about all runs."""
    file = tmp_path_factory.mktemp("page") / "runs.html"
    assert str(file) in _page(root, "--out", str(file))
    return file


@pytest.mark.parametrize("size", SIZES)
def test_the_page_sorts_filters_and_leads_to_a_run(chromium, page, ids, size):
    with visit(chromium, page, size) as shown:
        check_layout(shown)
        shown.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false })")
        rows = shown.locator("#runs tbody tr")
        assert rows.count() == len(PLANS)
        first = rows.first.get_by_role("link")
        # A phone has no room for whole ids, and shows the run while the table is scrolled sideways.
        assert first.inner_text() == (ids[LAST] if size == "desktop" else ids[LAST][:13])
        shown.evaluate("document.querySelector('.scroll').scrollLeft = 500")
        assert first.bounding_box()["x"] >= 0
        accuracy = shown.locator("#runs th", has_text=re.compile(r"^accuracy$")).get_by_role("button")
        for run in (WORSE, LAST):
            accuracy.click()
            assert first.text_content() == ids[run]
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
        # The chart of the accuracies fits, and its texts are not too small to read.
        assert shown.evaluate(
            "(frame => frame.scrollWidth <= frame.clientWidth)(document.querySelector('.graphs'))"
        )
        assert shown.evaluate(f"Math.min(...{_BOXES}.map(box => box.height))") > 10
        compared = shown.locator(f'[id="run-{ids[WORSE]}"] svg')
        assert compared.locator("path.baseline").count() >= 2
        assert compared.locator("text.edge").all_text_contents() == ["baseline"] * 2
        assert compared.locator("a", has_text="PushedModel").inner_html().count("not pushed") == 1


@pytest.mark.parametrize("size", SIZES)
def test_titles_and_values_of_many_axes_do_not_cover_each_other(chromium, tmp_path, size):
    store = Store(tmp_path)
    for index in range(3):
        keys = ("epochs", "learning_rate", "label_smoothing", "weight_decay")
        settings = {f"trainer.{key}": index + 1 for key in keys}
        gates = ("min_accuracy", "max_accuracy_drop", "max_class_precision_drop", "max_class_recall_drop")
        settings |= {f"evaluation.{key}": index / 10 + 0.05 for key in gates}
        settings |= {"model.cnn.filters": [16, 32, 64, 128, 256, 512, 1024 + index]}
        store.add(Plan(accuracy=0.5 + index / 10, settings=settings))
    store.close()
    file = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["page", "--root", str(tmp_path), "--out", str(file)]).exit_code == 0
    with visit(chromium, file, size) as shown:
        boxes = shown.evaluate(_BOXES)
        assert len(boxes) > 30
        covering = [
            (a, b)
            for a, b in itertools.combinations(boxes, 2)
            if max(a["left"], b["left"]) < min(a["right"], b["right"])
            and max(a["top"], b["top"]) < min(a["bottom"], b["bottom"]) - 3  # leading
        ]
        assert covering == []


def test_accuracies_are_over_time_unless_points_would_cover_each_other():
    rows = [{"run": str(i), "when": f"2026-01-0{i + 1} 10:00:00", "accuracy": i / 10} for i in range(3)]
    rows = [{**row, "blessed": None, "pushed": None} for row in rows]

    def places(moments):
        drawn = drawing.accuracies(rows, moments)
        return [float(x) for x in re.findall(r'cx="([\d.]+)"', drawn)], "run 3, 2026-01-03" in drawn

    spread, numbered = places([0, 10, 100])
    assert (spread[1] - spread[0]) == pytest.approx((spread[2] - spread[0]) / 10, abs=0.2)
    assert not numbered
    dense, numbered = places([0, 0.1, 100])
    assert (dense[1] - dense[0]) == pytest.approx((dense[2] - dense[0]) / 2, abs=0.2)
    assert numbered


def test_the_axes_are_settings_that_differ_between_runs_with_an_accuracy():
    settings = ["seed", "trainer.batch_size", "tuner.space.trainer.batch_size", "tuner.enabled"]
    rows = [
        {"run": "1", "accuracy": 0.8, "seed": 0, "trainer.batch_size": 64, "tuner.enabled": True},
        {"run": "2", "accuracy": 0.9, "seed": 0, "trainer.batch_size": 32, "tuner.enabled": False},
        {"run": "3", "accuracy": None, "seed": 5, "trainer.batch_size": 64, "tuner.enabled": False},
    ]
    drawn = drawing.parallel([{**row, settings[2]: row["run"]} for row in rows], settings)
    titles = re.findall(r'title" y="\d+"><title>([^<]*)</title>(.*?)</text>', drawn)
    assert {key: " ".join(re.findall(r">(\w+)<", words)) for key, words in titles} == {
        "trainer.batch_size": "trainer batch size",
        "tuner.space.trainer.batch_size": "space trainer batch size",
        "tuner.enabled": "tuner enabled",
        "accuracy": "accuracy",
    }
    assert {">yes<", ">no<"} <= set(re.findall(r">(?:yes|no)<", drawn))


def test_the_link_to_a_report_is_relative_to_the_page(ask, root, ids, tmp_path):
    shown = ask(root, "show", ids[FIRST])
    report = Path(shown["report"])
    report.touch()
    try:
        answer = json.loads(_page(root, "--out", str(tmp_path / "p.html"), "--json"))
    finally:
        report.unlink()
    assert answer == {"page": str(tmp_path / "p.html")}
    (link,) = re.findall(r'href="([^"#]*index.html)"', (tmp_path / "p.html").read_text())
    assert not link.startswith("/")
    assert (tmp_path / link).resolve() == report.resolve()


def _page(root, *arguments):
    result = CliRunner().invoke(app, ["page", "--root", str(root), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


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
