"""Stores with made-up runs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lineage.__main__ import app
from tests.lineage.made_store import Plan, Store

FIRST, WORSE, FAILED, KILLED, LAST = range(5)
PLANS = (
    Plan(accuracy=0.8, settings={"trainer.epochs": 10}),
    Plan(accuracy=0.7, settings={"trainer.epochs": 5}, blessed=False, code="c3", commit="f00d"),
    Plan(settings={"trainer.epochs": 6}, ends_at="Evaluator"),
    Plan(settings={"trainer.epochs": 7}, ends_at="Trainer", ended_by="killed"),
    Plan(data="cifar10", accuracy=0.95, settings={"trainer.epochs": 20}),
)


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A root with one run of each of PLANS, whose artifacts have files; tests must not change it."""
    folder = tmp_path_factory.mktemp("lineage") / "runs"
    store = Store(folder, name="tiny", files=True)
    (folder / "ids.json").write_text(json.dumps([store.add(plan) for plan in PLANS]))
    store.close()
    return folder


@pytest.fixture(scope="session")
def ids(root) -> list[str]:
    """The ids of the runs, in the order of PLANS."""
    return json.loads((root / "ids.json").read_text())


@pytest.fixture(scope="session")
def ask():
    """Runs a command as on the command line, and returns its answer, decoded from JSON."""

    def run(root: Path, *arguments: str, fails: bool = False):
        result = CliRunner().invoke(app, [*arguments, "--root", str(root), "--json"], catch_exceptions=False)
        assert result.exit_code == int(fails), result.output
        return json.loads(result.stdout) if result.stdout else result.stderr

    return run
