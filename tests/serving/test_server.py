"""The server as a process of its own."""

import concurrent.futures
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from serving import server
from tests.serving import samples

REPOSITORY = Path(__file__).resolve().parents[2]
BODY = {"signature_name": "serve_images", "instances": [[[[255, 255, 255]]]]}


def command(*arguments):
    return [sys.executable, "-m", "serving.server", *map(str, arguments)]


def is_ready(client):
    try:
        return client.get("/readyz").status_code == 200
    except httpx.ConnectError:
        return False


def test_the_signal_to_stop_lets_requests_end(saved, tmp_path):
    samples.push(saved[1], tmp_path / "m", 1)
    process = subprocess.Popen(
        command("--models", tmp_path, "--port", 0, "--refresh-seconds", 0.1),
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        while not (url := re.search(r"http://127.0.0.1:\d+", lines[-1] if lines else "")):
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        with httpx.Client(base_url=url.group(), timeout=30) as client:
            while not is_ready(client):
                time.sleep(0.05)

            # The body arrives in parts, the last of which after the signal.
            def slow_body():
                yield b'{"signature_name": "serve_images", '
                process.send_signal(signal.SIGTERM)
                time.sleep(0.5)
                yield b'"instances": [[[[255, 255, 255]]]]}'

            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                slow = pool.submit(client.post, "/v1/models/m:predict", content=slow_body())
                assert slow.result().json()["predictions"][0]["class_name"] == "bright"
            with pytest.raises(httpx.ConnectError):
                httpx.post(f"{url.group()}/v1/models/m:predict", json=BODY)
        error = process.communicate(timeout=30)[1]
        assert process.returncode in (0, -signal.SIGTERM)
        assert "version 1 loaded" in "".join(lines) + error
        assert "Traceback" not in error
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken(served, tmp_path):
    port = served.url.rpartition(":")[2]
    done = subprocess.run(
        command("--models", tmp_path, "--port", port),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "address already in use" in done.stderr.lower()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--models", "none"], 1, "error: --models none: expected a folder of pushed models"),
        (["--models", __file__], 1, "found a file"),
        (["--port", "70000"], 2, "65535"),
        (["--max-batch", "0"], 2, "--max-batch"),
    ],
)
def test_wrong_arguments(arguments, code, message):
    result = CliRunner().invoke(server.app, arguments)
    assert result.exit_code == code
    assert message in result.output
