import shlex
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.local import summary


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


def test_the_command_that_serves_the_model_quotes_its_paths():
    console = Console(record=True, width=80)
    summary.show(
        console,
        {
            "error": None,
            "test": dict.fromkeys(summary._TEST_METRICS, 0.5),
            "data": "cats",
            "blessed": True,
            "not_pushed_because": [],
            "notes": ["Files of earlier results are gone"],
            "pushed": "/my runs/it's/serving/cats/17",
            "report": "/report",
            "run": "1",
            "seconds": 3,
        },
        "cats",
        Path("run.log"),
    )
    text = console.export_text()
    command = next(line for line in text.splitlines() if line.startswith("Serve it: "))
    assert shlex.split(command.removeprefix("Serve it: "))[4:6] == [
        "-v",
        "/my runs/it's/serving/cats:/models/cats",
    ]
    assert "Files of earlier results are gone" in text
