"""Which versions a running server takes up, keeps and leaves alone."""

import concurrent.futures
import gc
import json
import logging
import re
import shutil
import threading
import time
from collections import Counter

import pytest
import tensorflow as tf

from serving import routing
from serving.saved_model import Model
from tests.serving import samples

LOOKS = 0.3  # seconds in which the server looks several times for new versions


@pytest.fixture
def root(saved, tmp_path):
    """A folder with version 1 of model m."""
    samples.push(saved[1], tmp_path / "m", 1)
    return tmp_path


def test_a_new_version_takes_over_without_a_failed_request(root, saved):
    with samples.serve(root) as served, concurrent.futures.ThreadPoolExecutor(4) as pool:
        stop = []

        def ask():
            found = []
            while not stop:
                found.append(served.answering())
            return found

        clients = [pool.submit(ask) for _ in range(4)]
        try:
            for version in (2, 3, 4):
                samples.push(saved[2 if version % 2 == 0 else 3], root / "m", version)
                served.wait_until(lambda version=version: served.states().get(version) == "AVAILABLE")
                time.sleep(0.1)
        finally:
            stop.append(True)
        # `answering` fails the test if an answer is not 200. The newest one answers at the end, and the one
        # before it is kept.
        tags = [client.result() for client in clients]
        assert served.answering() == 2
        assert served.states() == {4: "AVAILABLE", 3: "AVAILABLE"}
    for seen in tags:
        assert [tag for i, tag in enumerate(seen) if i == 0 or seen[i - 1] != tag] == [1, 2, 3, 2]


def test_unloaded_versions_free_their_memory(root, saved):
    def loaded():
        gc.collect()
        return sum(isinstance(each, Model) for each in gc.get_objects())

    before = loaded()
    with samples.serve(root) as served:
        for version in (2, 3, 4, 5):
            served.answering()
            samples.push(saved[2], root / "m", version)
            served.wait_until(lambda version=version: served.states().get(version) == "AVAILABLE")
            served.answering()
        assert loaded() - before == 2  # the one that answers, and the one before it


def test_a_broken_version_leaves_the_old_one_until_it_is_mended(root, saved, caplog):
    with samples.serve(root) as served:
        broken = samples.push(saved[2], root / "m", 2)
        index = broken / "variables/variables.index"
        index.write_bytes(b"")
        served.wait_until(lambda: served.states() == {2: "END", 1: "AVAILABLE"})
        assert served.answering() == 1
        status = served.http.get("/v1/models/m/versions/2").json()["model_version_status"][0]["status"]
        assert status["error_code"] == "UNKNOWN"
        assert "too short" in status["error_message"]
        served.wait_until(lambda: "version 2 is to answer, but version 1 answers" in caplog.text)
        assert served.http.get("/readyz").status_code == 200
        answer = served.http.post("/v1/models/m/versions/2:predict", json={})
        assert (answer.status_code, "Specific(m, 2)" in answer.text) == (404, True)
        shutil.copy(saved[2] / "variables/variables.index", index)
        served.wait_until(lambda: served.states() == {2: "AVAILABLE", 1: "AVAILABLE"})
        assert served.answering() == 2


def test_a_half_copied_version_is_not_looked_at(root, saved):
    with samples.serve(root) as served:
        part = root / "m/2"
        shutil.copytree(saved[2] / "variables", part / "variables")
        (root / "m/tmp").mkdir()
        # The graph without all variables is not complete either.
        for path in (root / "m/3", root / "m/4/variables"):
            path.mkdir(parents=True)
        for path in (root / "m/3", root / "m/4"):
            shutil.copy(saved[2] / "saved_model.pb", path)
        shutil.copy(saved[2] / "variables/variables.index", root / "m/4/variables")
        (root / "m/4/variables/variables.data-00000-of-00002").touch()
        time.sleep(LOOKS)
        assert served.states() == {1: "AVAILABLE"}
        # The graph is there before the rest: the files are still being written.
        for step in range(10):
            (part / "saved_model.pb").write_bytes(b"x" * step)
            time.sleep(0.02)
        assert served.states() == {1: "AVAILABLE"}
        shutil.copy(saved[2] / "saved_model.pb", part)
        served.wait_until(lambda: served.answering() == 2)


def test_a_version_whose_files_are_replaced_is_loaded_again(root, saved):
    with samples.serve(root) as served:
        shutil.copytree(saved[2], root / "m/1", dirs_exist_ok=True)
        served.wait_until(lambda: served.answering() == 2)
        assert served.states() == {1: "AVAILABLE"}


def test_a_removed_version_gives_way_to_the_one_before(root, saved):
    samples.push(saved[2], root / "m", 2)
    with samples.serve(root) as served:
        assert served.answering() == 2
        assert served.states() == {2: "AVAILABLE"}
        shutil.rmtree(root / "m/2")
        served.wait_until(lambda: served.states() == {1: "AVAILABLE"})
        assert served.answering() == 1
        metric = 'serving_answering_version{model="m"} 1.0'
        served.wait_until(lambda: metric in served.http.get("/metrics").text)
        # The last one: the model is gone.
        shutil.rmtree(root / "m/1")
        served.wait_until(lambda: served.http.get("/v1/models/m").status_code == 404)
        assert "serving_answering_version{" not in served.http.get("/metrics").text
        assert served.http.get("/readyz").status_code == 503


def test_a_model_that_cannot_be_loaded_does_not_stop_the_others(root, saved):
    samples.pretend(root / "bad/1")
    with samples.serve(root) as served:
        assert served.http.get("/readyz").json() == {"status": "ready", "models": ["m"]}
        assert served.answering() == 1
        assert served.states("bad") == {1: "END"}
        answer = served.http.post("/v1/models/bad:predict", json={})
        assert (answer.status_code, "Latest(bad)" in answer.text) == (404, True)
        samples.push(saved[2], root / "other", 5)
        served.wait_until(lambda: served.http.get("/v1/models").json() == {"models": ["m", "other"]})
        assert served.answering("other") == 2


def test_without_a_model_the_server_waits(tmp_path, saved, caplog):
    with samples.serve(tmp_path, ready=False) as served:
        assert served.http.get("/healthz").json() == {"status": "ok"}
        for path in ("/readyz", "/v2/health/ready"):
            answer = served.http.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert caplog.messages == [f"{tmp_path} has no pushed model yet; the server waits for one"]
        samples.push(saved[1], tmp_path / "m", 1)
        served.wait_until(lambda: served.http.get("/readyz").status_code == 200)
        assert served.answering() == 1


def test_a_folder_that_cannot_be_read_changes_nothing(root):
    with samples.serve(root) as served:
        moved = root.rename(root.with_name("moved"))
        time.sleep(LOOKS)
        assert served.answering() == 1
        moved.rename(root)


def test_a_pinned_version_stays_whatever_is_pushed(root, saved):
    routing.write(root / "m", routing.Routes(stable=1))
    with samples.serve(root) as served:
        samples.push(saved[2], root / "m", 2)
        time.sleep(LOOKS)
        assert served.answering() == 1
        routing.write(root / "m", routing.Routes())
        served.wait_until(lambda: served.answering() == 2)


def test_a_promoted_version_that_cannot_be_loaded_leaves_the_old_one(root, saved, caplog):
    broken = samples.push(saved[2], root / "m", 2)
    (broken / "variables/variables.index").write_bytes(b"")
    routing.write(root / "m", routing.Routes(stable=1))
    with samples.serve(root) as served:
        for routes, version in ((routing.Routes(stable=2), 2), (routing.Routes(stable=9), 9)):
            routing.write(root / "m", routes)
            served.wait_until(lambda version=version: served.states().get(version) == "END")
            assert served.answering() == 1
            message = f"version {version} is to answer, but version 1 answers"
            served.wait_until(lambda message=message: message in caplog.text)
        # A file that is no JSON changes nothing either.
        (root / "m/versions.json").write_text("{")
        time.sleep(LOOKS)
        assert served.answering() == 1


def test_a_version_that_was_unloaded_is_loaded_again(root, saved, caplog):
    caplog.set_level(logging.INFO, "serving")
    for version in (2, 3):
        samples.push(saved[version], root / "m", version)
    with samples.serve(root) as served:
        tried = []
        steps = ((1, 3, None), (2, 1, None), (3, 2, None), (1, 3, 2), (None, 1, None))
        for stable, previous, shadow in steps:
            routing.write(root / "m", routing.Routes(stable=stable, previous=previous, shadow=shadow))
            expected = stable or 3
            loaded = {expected, previous, shadow} - {None}
            served.wait_until(lambda loaded=loaded: served.states().keys() == loaded)
            served.wait_until(lambda expected=expected: served.answering() == expected)
            tried.append(served.answering())
        assert tried == [1, 2, 3, 1, 3]
        # A rollback would return to version 2 now.
        routing.write(root / "m", routing.Routes(stable=3, previous=2))
        served.wait_until(lambda: served.states().keys() == {2, 3})
        routing.write(root / "m", routing.Routes(previous=3))
        time.sleep(LOOKS)
        assert served.states().keys() == {2, 3}
        # What is loaded stays loaded, whatever the number of looks.
        loads = caplog.text.count(" loaded in ")
        time.sleep(LOOKS)
        assert caplog.text.count(" loaded in ") == loads
    assert "is to answer, but" not in caplog.text


def test_the_version_before_is_loaded_after_a_restart(root, saved, caplog):
    caplog.set_level(logging.INFO, "serving")
    for version in (2, 3):
        samples.push(saved[version], root / "m", version)
    routing.write(root / "m", routing.Routes(stable=1, canary=2, percent=0, previous=3))
    with samples.serve(root) as served:
        assert served.answering() == 1
        assert served.states() == {1: "AVAILABLE", 2: "AVAILABLE", 3: "AVAILABLE"}
    # The one that answers is first: no other one stands in for it.
    assert re.findall(r"version (\d) loaded", caplog.text) == ["1", "2", "3"]


def test_signatures_that_do_not_predict_are_warmed_up_after_the_swap(tmp_path, monkeypatch):
    module = samples.Brightness(1, list(samples.NAMES))
    signatures = {"serve_image_bytes": module.image_bytes, "describe_images": module.images}
    tf.saved_model.save(module, str(tmp_path / "m/1"), signatures=signatures)
    run, asked, started = Model.run, [], threading.Event()

    def note(self, signature, inputs):
        states = None
        if signature == "describe_images":
            assert started.wait(20)
            states = served.states()
        asked.append((signature, len(next(iter(inputs.values()))), states))
        return run(self, signature, inputs)

    monkeypatch.setattr(Model, "run", note)
    with samples.serve(tmp_path) as served:
        started.set()
        served.wait_until(lambda: len(asked) == 3)
    assert [each[:2] for each in asked] == [
        ("serve_image_bytes", 1),
        ("serve_image_bytes", 32),
        ("describe_images", 1),
    ]
    assert asked[-1][2] == {1: "AVAILABLE"}


def test_a_pinned_version_that_is_removed_goes_on_while_the_server_runs(root, saved):
    samples.push(saved[2], root / "m", 2)
    routing.write(root / "m", routing.Routes(stable=2))
    with samples.serve(root) as served:
        shutil.rmtree(root / "m/2")
        message = '"versions.json names this version, but it is not there, or not complete"'
        served.wait_until(lambda: message in served.http.get("/v1/models/m/versions/2").text)
        assert served.answering() == 2


def test_the_canary_answers_its_share(root, saved):
    samples.push(saved[2], root / "m", 2)
    routing.write(root / "m", routing.Routes(stable=1, canary=2, percent=30))
    with samples.serve(root) as served:
        served.wait_until(lambda: served.states() == {1: "AVAILABLE", 2: "AVAILABLE"})
        share = Counter(served.answering() for _ in range(400))
        # The chance to be outside is below one in a million.
        assert 70 < share[2] < 180
        routing.write(root / "m", routing.Routes(stable=1, canary=2, percent=100))
        served.wait_until(lambda: Counter(served.answering() for _ in range(10)) == {2: 10})


def test_the_shadow_is_compared_but_does_not_answer(root, saved):
    samples.push(saved[3], root / "m", 3)
    routing.write(root / "m", routing.Routes(stable=1, shadow=3))
    with samples.serve(root) as served:
        served.wait_until(lambda: served.states() == {1: "AVAILABLE", 3: "AVAILABLE"})
        comparison = served.http.get("/v1/models/m/comparison")
        assert comparison.json() == {"images": 0}
        images = [[[[0, 0, 0]]], [[[255, 255, 255]]]]
        body = {"signature_name": "serve_images", "instances": images}
        for _ in range(20):
            answer = served.http.post("/v1/models/m:predict", json=body).json()
            assert [row["tag"] for row in answer["predictions"]] == [1, 1]
        served.wait_until(lambda: served.http.get("/v1/models/m/comparison").json()["images"] >= 20)
        found = served.http.get("/v1/models/m/comparison").json()
        # Version 3 calls bright images dark, and dark ones bright.
        assert found["agreement"] == 0
        assert [each["version"] for each in found["versions"]] == [1, 3]
        assert all(each["mean_confidence"] == 1 and each["median_ms"] > 0 for each in found["versions"])
        assert (
            'serving_shadow_images_total{agrees="no",model="m",version="3"}'
            in served.http.get("/metrics").text
        )
        assert served.http.get("/v1/models/no/comparison").status_code == 404


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected an object"),
        ('{"stabel": 1}', "expected an object with some of stable"),
        ('{"stable": "1"}', "stable: expected the number of a version"),
        ('{"stable": true}', "stable: expected the number of a version"),
        ('{"percent": null}', "percent: expected"),
        ('{"percent": 101}', "percent: expected 0 to 100"),
        ("{", "expected routes as JSON"),
    ],
)
def test_routes_that_are_wrong(tmp_path, content, message):
    (tmp_path / "versions.json").write_text(content)
    with pytest.raises(routing.RoutingError, match=message):
        routing.read(tmp_path)


def test_routes_are_read_as_they_were_written(tmp_path):
    assert routing.read(tmp_path) == routing.Routes()
    routes = routing.Routes(stable=1, canary=2, percent=5, shadow=3, previous=4)
    routing.write(tmp_path, routes)
    assert routing.read(tmp_path) == routes
    assert [path.name for path in tmp_path.iterdir()] == ["versions.json"]
    assert json.loads((tmp_path / "versions.json").read_text())["canary"] == 2


def test_a_model_that_waits_answers_when_it_is_promoted_and_keeps_no_other_one_waiting(root, saved):
    samples.push(saved[2], root / "waits", 7)
    routing.write(root / "waits", routing.Routes(stable=routing.NO_VERSION))
    with samples.serve(root) as served:
        served.wait_until(lambda: served.http.get("/readyz").status_code == 200)
        answer = served.http.get("/v1/models/waits")
        assert answer.json() == {"model_version_status": []}
        answer = served.http.post("/v1/models/waits:predict", json={"instances": [0]})
        assert (answer.status_code, "Latest(waits)" in answer.text) == (404, True)
        routing.write(root / "waits", routing.Routes(stable=7))
        served.wait_until(lambda: served.states("waits") == {7: "AVAILABLE"})
