"""The script that measures the model server, with a tiny model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import samples

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_each_protocol_answers_without_failures(tmp_path):
    version = samples.save(tmp_path / "1", 1)
    command = [
        sys.executable,
        "scripts/measure_serving.py",
        str(version),
        "--clients",
        "2",
        "--seconds",
        "0.3",
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"bare model, batch 32: \d+ images/s", done.stdout)
    for protocol in ("json", "v2", "grpc"):
        assert re.search(rf"{protocol}, 1 client: p50 [\d.]+ ms", done.stdout)
        assert re.search(rf"{protocol}, 2 clients: [1-9]\d* images/s.*; 0 failures", done.stdout)
