"""Runs with one set of packages in a root that the other set has written.

The newer set is the one of the Debian 13 root that scripts/debian13.sh has made before.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets import shapes

REPOSITORY = Path(__file__).resolve().parents[2]
NEWER_PYTHON = Path(os.environ.get("DEBIAN13_ROOT", "/var/tmp/debian13")) / "project" / ".venv" / ".installed"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info >= (3, 11), reason="the tests start from the older set of packages"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not NEWER_PYTHON.exists(), reason="there is no Debian 13 root with the newer set"
    ),
]

SMALL = (
    *("--no-tune", "--set", "model.cnn.filters=[16, 32, 32]"),
    *("--set", "trainer.epochs=3", "--set", "trainer.batch_size=32"),
    # With 40 test images of 10 classes, chance decides what a model after three epochs predicts.
    *("--set", "evaluation.min_confidence_above_guessing=null"),
    *("--set", "evaluation.max_classes_never_predicted=null"),
    *("--set", "evaluation.min_accuracy=0.12", "--set", "evaluation.max_accuracy_drop=1"),
    *("--set", "evaluation.max_class_precision_drop=1", "--set", "evaluation.max_class_recall_drop=1"),
)
COMMANDS = {
    "older": [sys.executable, str(REPOSITORY / "local_runner.py")],
    "newer": [str(REPOSITORY / "scripts" / "debian13.sh"), ".venv/bin/python", "local_runner.py"],
}


@pytest.fixture
def shared(tmp_path):
    """A folder that both sets see, with a dataset and a root for runs."""
    shapes.convert(tmp_path / "dataset", train=160, val=40, test=40)
    return tmp_path


def _start(packages, shared, *arguments):
    own = ["--data", str(shared / "dataset"), "--root", str(shared / "runs"), *SMALL, *arguments]
    own += ["--summary", str(shared / "summary.json")]
    return subprocess.Popen(
        [*COMMANDS[packages], *own],
        env=os.environ | {"DEBIAN13_SHARE": str(shared)},
        stdout=(shared / "output").open("w"),
        stderr=subprocess.STDOUT,
    )


def _run(packages, shared, *arguments):
    process = _start(packages, shared, *arguments)
    process.wait(timeout=600)
    output = (shared / "output").read_text()
    assert process.returncode == 0, output
    return json.loads((shared / "summary.json").read_text()), output


@pytest.mark.parametrize(("first", "second"), [("older", "newer"), ("newer", "older")])
def test_both_sets_share_a_root(shared, first, second):
    killed = _start(first, shared)
    deadline = time.monotonic() + 300
    while "training: epoch 1/3 in" not in (shared / "output").read_text():
        assert killed.poll() is None and time.monotonic() < deadline, (shared / "output").read_text()
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before, output = _run(second, shared)
    assert "training: resumes after epoch" in output

    after = _run(first, shared, "--set", "seed=1")[0]
    assert before["pushed"] and after["pushed"] and before["pushed"] != after["pushed"]
    metrics = json.loads((Path(after["report"]).parent / "metrics.json").read_text())
    # The model of the other set was loaded, evaluated and compared with.
    assert metrics["comparison"]["examples"] == 40

    again = _run(second, shared, "--set", "seed=1")[0]
    rerun = {each["id"] for each in again["components"] if each["state"] != "cached"}
    # TFX 1.21 does not take a push of TFX 1.16 from the cache, and pushes the model again.
    assert rerun <= {"Pusher"}
