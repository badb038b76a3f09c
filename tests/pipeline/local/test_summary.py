import shlex
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.local import summary

PUSHED = {
    "error": None,
    "test": dict.fromkeys(summary._TEST_METRICS, 0.5),
    "data": "cats",
    "blessed": True,
    "not_pushed_because": [],
    "serving": {"load_seconds": 1.25, "p50_ms": 1.46, "p99_ms": 2.9, "memory_mb": None},
    "notes": ["Files of earlier results are gone"],
    "pushed": "/my runs/it's/serving/cats/17",
    "report": "/report",
    "run": "1",
    "seconds": 3,
}


@pytest.mark.parametrize(
    ("component", "interrupted", "title"),
    [
        ("Trainer", False, "Trainer failed"),
        ("Trainer", True, "Trainer interrupted"),
        (None, False, "The run failed"),
    ],
)
def test_the_title_says_whether_the_run_failed_or_was_interrupted(component, interrupted, title):
    console = Console(record=True, width=80)
    error = {"component": component, "message": "why", "interrupted": interrupted}
    summary.show(console, {"error": error}, "cifar10", Path("run.log"))
    text = console.export_text()
    assert f" {title} " in text
    assert "why" in text
    assert "Log: run.log" in text


@pytest.fixture
def show_pushed():
    """Returns what is shown of a run that has pushed a model."""

    def show(**options):
        console = Console(record=True, width=80)
        summary.show(console, PUSHED, "cats", Path("run.log"), **options)
        return console.export_text()

    return show


def test_the_command_that_serves_the_model_quotes_its_paths(show_pushed):
    text = show_pushed()
    command = next(line for line in text.splitlines() if line.startswith("Serve it: "))
    assert shlex.split(command.removeprefix("Serve it: "))[4:6] == [
        "-v",
        "/my runs/it's/serving/cats:/models/cats",
    ]
    assert "Files of earlier results are gone" in text
    assert "loads in 1.2 s; one image takes 1.5 ms (p50), 2.9 ms (p99)" in " ".join(text.split())


def test_a_model_that_waits_is_shown_with_the_command_that_promotes_it(show_pushed):
    last = show_pushed(waits=True).splitlines()[-1]
    assert shlex.split(last.removeprefix("Promote it: ")) == [
        *("python", "-m", "serving.versions", "promote", "17"),
        *("--models", "/my runs/it's/serving", "--model", "cats"),
    ]
