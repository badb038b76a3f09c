import shlex
import signal
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.local import summary
from pipeline.local.runner import Run

PUSHED = {
    "error": None,
    "test": dict.fromkeys(summary._TEST_METRICS, 0.5),
    "data": "cats",
    "hyperparameters": {"trainer.learning_rate": 0.14142, "trainer.batch_size": 250},
    "tuned": ["trainer.learning_rate"],
    "search": {"best_score": 0.61, "interval": [0.59, 0.63], "within": 2, "seconds": 60.0},
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
    assert shlex.split(command.removeprefix("Serve it: "))[3:] == ["--models", "/my runs/it's/serving"]
    assert "Files of earlier results are gone" in text
    assert "loads in 1.2 s; one image takes 1.5 ms (p50), 2.9 ms (p99)" in " ".join(text.split())
    assert (
        "Chosen by the Tuner trainer.learning_rate 0.1414; validation accuracy 0.6100 (0.5900 to 0.6300, "
        "with 2 other trials in this interval)"
    ) in " ".join(text.split())


def test_the_accuracy_on_corrupted_images_is_shown_where_it_was_measured(show_pushed, monkeypatch):
    assert "Test accuracy, corrupted images 0.5000" in " ".join(show_pushed().split())
    monkeypatch.setitem(PUSHED["test"], "corrupted_accuracy", None)
    assert "corrupted" not in show_pushed()


def test_a_model_that_waits_is_shown_with_the_command_that_promotes_it(show_pushed):
    last = show_pushed(waits=True).splitlines()[-1]
    assert shlex.split(last.removeprefix("Promote it: ")) == [
        *("python", "-m", "serving.versions", "promote", "17"),
        *("--models", "/my runs/it's/serving", "--model", "cats"),
    ]


def test_the_verdict_does_not_contradict_that_nothing_is_pushed():
    console = Console(record=True, width=120)
    refused = {"blessed": False, "pushed": None, "not_pushed_because": ["serving check: it is slow"]}
    summary.show(console, {**PUSHED, **refused}, "cats", Path("run.log"))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    at = lines.index("Blessed no")
    assert lines[at + 1] == "serving check: it is slow"
    assert "Pushed model none: only a blessed model is pushed" in lines


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (signal.SIGINT, "interrupted; the same command resumes the run"),
        (signal.SIGTERM, "interrupted by SIGTERM; the same command resumes the run"),
        (None, "out of paper"),
    ],
)
def test_a_run_that_ended_early_says_why(tmp_path, by, message):
    run = Run(id="1", error=RuntimeError("out of paper"), signal=by)
    described = summary.build(run, tmp_path / "metadata.sqlite", "cats", "cats", "cnn", 1.0)
    assert described["error"] == {"component": None, "message": message, "interrupted": by is not None}
