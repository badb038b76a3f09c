import pytest
import tensorflow as tf

from components.serving_check import check
from settings.serving_check import ServingCheckConfig
from tests.components.serving_check import brightness
from tests.components.serving_check.brightness import Brightness

pytestmark = pytest.mark.slow
UNLIMITED = ServingCheckConfig()


@pytest.fixture(scope="module")
def request_content(tmp_path_factory):
    path = brightness.write_examples(tmp_path_factory.mktemp("records") / "records.gz", (10, 60, 180, 250))
    return check.read_request([path], brightness.NAMES, 3)


def test_a_request_has_no_labels(request_content):
    assert len(request_content["examples"]) == 3
    example = tf.train.Example.FromString(bytes.fromhex(request_content["examples"][0]))
    assert list(example.features.feature) == ["image"]


def test_a_correct_model_has_no_problems_but_the_limits_that_it_exceeds(request_content, tmp_path):
    limits = ServingCheckConfig(max_load_seconds=600.0, max_p99_ms=1e-3, max_memory_mb=100.0)
    answer = check.ask(Brightness().save(tmp_path), request_content, limits)
    latency = answer["latency_ms"]
    assert latency.keys() == {"serving_default", "serve_image_bytes", "serve_images"}
    assert 100 < answer["memory_mb"] < 5000
    assert answer["problems"] == [
        f"the process that serves the model needed {answer['memory_mb']:g} MB; serving_check.max_memory_mb "
        "allows 100",
        *(
            f"the 99th percentile of a single image through {name} is {figures['p99']:g} ms; "
            "serving_check.max_p99_ms allows 0.001"
            for name, figures in latency.items()
        ),
    ]
    assert all(0 < each["p50"] <= each["p99"] and each["requests"] == 200 for each in latency.values())
    hostile = answer["hostile"]
    assert hostile["serve_image_bytes with an empty batch"] == "answered"
    assert hostile["serve_image_bytes with a JPEG of 4000 x 4000 pixels"] == "answered"
    assert hostile["serve_image_bytes with a truncated JPEG"].startswith("refused: ")
    assert len(hostile) == 11


def test_answers_that_differ_between_signatures_or_after_a_hostile_request_are_problems(
    request_content, tmp_path
):
    problems = check.ask(Brightness(offset=0.2, forgets=True).save(tmp_path), request_content, UNLIMITED)[
        "problems"
    ]
    assert problems == [
        "serve_image_bytes: the same images get different probabilities from serving_default",
        *(
            f"serve_image_bytes: it answers differently after {kind}"
            for kind in ("an empty batch", "a wrong rank", "a truncated JPEG", "a JPEG of 4000 x 4000 pixels")
        ),
        *(
            f"serve_images: it answers differently after {kind}"
            for kind in ("an empty batch", "a wrong rank", "4000 x 4000 pixels")
        ),
    ]


def test_a_directory_without_a_model_is_reported_as_a_problem(request_content, tmp_path):
    (problem,) = check.ask(str(tmp_path), request_content, UNLIMITED)["problems"]
    assert "when asked: load the model" in problem
    assert "SavedModel file does not exist" in problem


def _client(tmp_path, monkeypatch, code):
    """Lets `ask` run another program in place of the client, and asks."""
    script = tmp_path / "client.py"
    script.write_text(code)
    monkeypatch.setattr(check.client, "__file__", str(script))
    return check.ask("model", {"examples": []}, UNLIMITED)


LOADING = "print('asking: load the model', flush=True)\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
            "was ended by SIGKILL (from the kernel, if the memory was used up) when asked: load the model",
        ),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV when asked: load"),
        (
            "import sys\nprint('MemoryError', file=sys.stderr)\nsys.exit(75)",
            "failed when asked: load the model",
        ),
        ("import time\ntime.sleep(60)", "did not answer within 0.5 seconds when asked: load the model"),
    ],
    ids=["killed", "crashed", "no memory", "timeout"],
)
def test_what_befalls_the_machine_is_no_verdict_on_the_model(tmp_path, monkeypatch, code, expected):
    monkeypatch.setattr(check, "_TIMEOUT_SECONDS", 0.5)
    with pytest.raises(check.NoVerdictError, match="This says nothing about the model") as error:
        _client(tmp_path, monkeypatch, LOADING + code)
    assert expected in str(error.value)


def test_a_client_that_does_not_get_so_far_as_to_load_the_model_is_no_verdict(tmp_path, monkeypatch):
    with pytest.raises(check.NoVerdictError, match="failed: ModuleNotFoundError: No module named 'nowhere'"):
        _client(tmp_path, monkeypatch, "import nowhere")


def test_an_error_of_the_model_is_a_verdict(tmp_path, monkeypatch):
    (problem,) = _client(tmp_path, monkeypatch, LOADING + "raise ValueError('bad graph')")["problems"]
    assert problem.endswith("exited with status 1 when asked: load the model: ValueError: bad graph")
