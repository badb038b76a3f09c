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
