"""Runs `kubeflow_runner.py submit` as a user does, with an API on this machine."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import web_api

REPOSITORY = Path(__file__).resolve().parents[2]


def _kubeflow(state, *tasks):
    def answer(request):
        if request.method == "POST":
            return 200, {"run_id": "r-1", "experiment_id": "e-1"}
        if request.path.endswith("/r-1"):
            details = [{"display_name": n, "state": s, "error": e} for n, s, e in tasks]
            return 200, {"state": state, "run_details": {"task_details": details}}
        return 200, {}

    return answer


@pytest.fixture
def submit(kubeflow_runner, compiled_files):
    def submit_(target, *arguments):
        return kubeflow_runner(
            "submit", "--target", target, "--file", str(compiled_files[target]), *arguments
        )

    return submit_


def test_waiting_for_a_run_that_succeeds_ends_with_exit_code_0(submit):
    with web_api.serve(_kubeflow("SUCCEEDED", ("Trainer", "SUCCEEDED", None))) as api:
        result = submit("kfp", "--host", api.url, "--set", "trainer.epochs=30", "--wait")
        (created,) = api.received("POST", "/runs")
    assert result.returncode == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert lines == [f"Run {api.url}/#/runs/details/r-1", "Trainer done", "The run is done."]
    assert created.body["runtime_config"]["parameters"] == {"epochs": 30}


def test_waiting_for_a_run_that_fails_ends_with_its_cause_and_exit_code_1(submit):
    failed = ("Trainer", "FAILED", {"code": 13, "message": "out of memory"})
    with web_api.serve(_kubeflow("FAILED", failed)) as api:
        result = submit("kfp", "--host", api.url, "--wait")
    assert result.returncode == 1
    assert result.output.endswith("error: Trainer failed: out of memory\n")


def test_an_interrupt_does_not_stop_the_run(compiled_files, environment):
    command = ["submit", "--target", "kfp", "--file", str(compiled_files["kfp"]), "--wait", "--host"]
    with web_api.serve(_kubeflow("RUNNING", ("Trainer", "RUNNING", None))) as api:
        with subprocess.Popen(
            # If a script runs the tests in the background, child processes would ignore SIGINT.
            [
                "env",
                "--default-signal=INT",
                sys.executable,
                str(REPOSITORY / "kubeflow_runner.py"),
                *command,
                api.url,
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            link = process.stdout.readline().split()[-1]
            assert process.stdout.readline().split() == ["Trainer", "running"]
            process.send_signal(signal.SIGINT)
            try:
                output, _ = process.communicate(timeout=30)
            finally:
                process.kill()
        assert {r.method for r in api.requests if "r-1" in r.path} == {"GET"}
    assert process.returncode == 130
    # If rich is interrupted while it prints a line, it prints that line again.
    assert output.splitlines()[-2:] == ["No longer waiting; the run continues:", link]


def test_missing_credentials_are_searched_for_only_once(compiled_files, environment, tmp_path):
    place = ("--project", "p", "--region", "europe-west4")
    command = ["submit", "--target", "vertex", "--file", str(compiled_files["vertex"]), *place]
    connections = []

    def accept_without_answer(server):
        with contextlib.suppress(OSError):  # The test closes the server.
            while True:
                connections.append(server.accept())

    # This server stands in for Google's metadata server.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=accept_without_answer, args=(silent,), daemon=True).start()
        process = subprocess.run(
            [sys.executable, str(REPOSITORY / "kubeflow_runner.py"), *command],
            env={
                **{name: value for name, value in environment.items() if not name.startswith("GOOGLE")},
                "HOME": str(tmp_path),
                "NO_PROXY": "127.0.0.1,metadata.google.internal",
                "GCE_METADATA_IP": f"127.0.0.1:{silent.getsockname()[1]}",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert process.returncode == 1
    assert process.stdout == ""
    assert process.stderr == (
        "error: there are no credentials for Google Cloud on this machine; run `gcloud auth "
        "application-default login`\n"
    )
    # By default google.auth tries three times, which takes some 15 seconds.
    assert len(connections) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--schedule", "0 3 * * 1", "--wait"], "--wait waits for one run, and a schedule has no end"),
        (["--schedule", "0 0 3 * * 1"], "expected the five fields of cron, such as '0 3 * * 1'"),
        (["--host", "http://127.0.0.1:9"], "cannot reach Kubeflow Pipelines at http://127.0.0.1:9"),
        (["--host", "http://127.0.0.1:9", "--set", "seed=1"], "seed is compiled into the file"),
    ],
)
def test_invalid_flags_of_submit_are_reported_without_traceback(submit, arguments, expected):
    result = submit("kfp", *arguments)
    assert result.returncode == 1
    assert expected in result.output
    assert "Traceback" not in result.output
