"""The server as a process of its own."""

import base64
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

            image = base64.b64encode(samples.picture(9)).decode()
            answer = client.post("/v1/models/m:predict", json={"instances": [{"b64": image}]})
            assert answer.status_code == 400

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
        log = "".join(lines) + error
        assert "model m: version 1 answers; loaded versions: 1\n" in log
        for noise in ("Traceback", "Warning", "cuFFT", "cuDNN", "None"):
            assert noise not in log
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken(served, tmp_path):
    port = served.url.rpartition(":")[2]
    result = CliRunner().invoke(server.app, ["--models", str(tmp_path), "--port", port])
    assert result.exit_code == 1
    assert f"error: HTTP cannot listen on 127.0.0.1:{port}: Address already in use" in result.output


def test_the_folder_of_one_model(tmp_path):
    samples.pretend(tmp_path / "m/7")
    result = CliRunner().invoke(server.app, ["--models", str(tmp_path / "m")])
    assert result.exit_code == 1
    message = f"error: --models {tmp_path}/m is the folder of the model m; expected the folder that holds it"
    assert f"{message}, which is {tmp_path}\n" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--models", "none"], 1, "error: --models none: expected a folder of pushed models"),
        (["--models", __file__], 1, "found a file"),
        (["--port", "70000"], 2, "65535"),
        (["--max-batch", "0"], 2, "--max-batch"),
        (["--models", ".", "--port", "8500", "--grpc-port", "8500"], 2, "another port than 8500"),
    ],
)
def test_wrong_arguments(arguments, code, message):
    result = CliRunner().invoke(server.app, arguments)
    assert result.exit_code == code
    assert message in result.output
