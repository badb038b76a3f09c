import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from components.pusher import destinations
from serving import routing
from serving.routing import Routes
from settings.places import unrecorded_mark


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    return folder


def _content(folder: Path):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_version_is_a_copy_whose_number_is_the_time(model, tmp_path):
    before = int(time.time())
    place, version = destinations.push(str(model), str(tmp_path / "serving" / "m"), {})
    assert before <= int(version) <= time.time()
    assert Path(place) == tmp_path / "serving" / "m" / version
    assert _content(Path(place)) == _content(model)
    assert [entry.name for entry in Path(place).parent.iterdir()] == [version]


def test_a_version_is_higher_than_all_that_are_there(model, tmp_path):
    (tmp_path / "m" / "9999999999").mkdir(parents=True)
    (tmp_path / "m" / "notes.txt").touch()
    assert destinations.push(str(model), str(tmp_path / "m"), {})[1] == "10000000000"
    assert destinations.push(str(model), str(tmp_path / "m"), {})[1] == "10000000001"


def test_servers_may_read_a_version_that_another_user_has_pushed(model, tmp_path):
    old = os.umask(0o022)
    try:
        place, _ = destinations.push(str(model), str(tmp_path / "m"), {})
    finally:
        os.umask(old)
    assert oct(Path(place).stat().st_mode)[-3:] == "755"
    assert oct((Path(place) / "variables").stat().st_mode)[-3:] == "755"


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "variables.index; No space left on device"),
    ],
    ids=["Python", "TensorFlow"],
)
def test_a_push_to_a_full_disk_leaves_nothing_and_says_how_much_it_needs(model, tmp_path, monkeypatch, error):
    def full(source, target, overwrite=False):
        del source, overwrite
        Path(target).write_bytes(b"")
        raise error

    (model / "variables" / "large").write_bytes(bytes(1_500_000))
    monkeypatch.setattr(destinations.fileio, "copy", full)
    with pytest.raises(
        destinations.PushError, match=r"cannot push .* takes 1\.5 MB, and [\d.,]+ MB are free\. Remove old"
    ):
        destinations.push(str(model), str(tmp_path / "m"), {})
    assert list((tmp_path / "m").iterdir()) == []


def test_all_files_of_a_version_are_on_the_disk_before_it_gets_its_name(model, tmp_path, monkeypatch):
    synced: list[Path] = []

    def sync(descriptor, fsync=os.fsync):
        fsync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", sync)
    place, version = destinations.push(str(model), str(tmp_path / "m"), {})
    *inside, last = [path.relative_to(tmp_path / "m") for path in synced]
    assert {path.parts[0][:11] for path in inside} == {f".{version}"}  # the hidden name
    below = {"/".join(path.parts[1:]) for path in inside}
    assert below == {"", "saved_model.pb", "variables", "variables/variables.index"}
    assert tmp_path / "m" / last == Path(place).parent  # where the version gets its name


def test_a_push_that_is_killed_while_it_copies_is_swept_by_the_next_one(model, tmp_path):
    code = f"""
import os, signal
from components.pusher import destinations
def kill(source, target, overwrite=False):
    open(target, "wb").close()
    os.kill(os.getpid(), signal.SIGKILL)
destinations.fileio.copy = kill
destinations.push({str(model)!r}, {str(tmp_path / "m")!r}, {{}})
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "m").iterdir()
    assert left.name.startswith(".")
    _, version = destinations.push(str(model), str(tmp_path / "m"), {})
    assert [entry.name for entry in (tmp_path / "m").iterdir()] == [version]


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        destinations.PushError, match=re.escape("expected a SavedModel, found no saved_model.pb")
    ):
        destinations.push(str(tmp_path / "empty"), str(tmp_path / "m"), {})
    assert not (tmp_path / "m").exists()


def _push(model, base, waits=True):
    return int(destinations.push(str(model), str(base), {}, waits)[1])


def test_a_version_waits_while_the_one_that_answered_goes_on(model, tmp_path):
    base = tmp_path / "m"
    first = _push(model, base, waits=False)
    assert not (base / routing.FILE).exists()
    (base / str(first + 5)).mkdir()  # not complete: no server serves it
    second = _push(model, base)
    assert routing.read(base) == Routes(stable=first)
    assert second == first + 6
    _push(model, base)
    assert routing.read(base) == Routes(stable=first)


def test_the_first_version_waits_and_none_answers(model, tmp_path):
    version = _push(model, tmp_path / "m")
    assert routing.read(tmp_path / "m") == Routes(stable=routing.NO_VERSION)
    assert routing.read(tmp_path / "m").stable_of([version]) is None


def test_what_serving_versions_has_chosen_is_kept(model, tmp_path):
    base = tmp_path / "m"
    first, second = _push(model, base, waits=False), _push(model, base, waits=False)
    routing.write(base, Routes(stable=first, canary=second, percent=5, previous=second))
    _push(model, base)
    assert routing.read(base) == Routes(stable=first, canary=second, percent=5, previous=second)
    # After `promote newest`, the newest answers, but not a shadow.
    routing.write(base, Routes(shadow=max(int(p.name) for p in base.iterdir() if p.is_dir()), previous=first))
    shadow = routing.read(base).shadow
    _push(model, base)
    assert routing.read(base) == Routes(stable=second, shadow=shadow, previous=first)


def test_nothing_is_pushed_if_no_version_could_wait(model, tmp_path):
    base = tmp_path / "m"
    base.mkdir()
    for content in ("{", "[]", "3"):
        (base / routing.FILE).write_text(content)
        with pytest.raises(destinations.PushError, match=r"versions\.json: expected a JSON object"):
            _push(model, base)
        assert [entry.name for entry in base.iterdir()] == [routing.FILE]
    with pytest.raises(destinations.PushError, match=r"gs://b/m: only in a folder can a model wait"):
        destinations.push(str(model), "gs://b/m", {}, True)


def test_a_push_that_was_killed_before_it_was_recorded_is_not_repeated(model, tmp_path):
    base = tmp_path / "m"
    first = _push(model, base, waits=False)
    (base / unrecorded_mark(str(first))).touch()
    assert _push(model, base, waits=False) == first
    assert [entry.name for entry in base.iterdir()] == [str(first)]
    assert _push(model, base, waits=False) == first + 1
    (base / unrecorded_mark(str(first + 1))).touch()
    (model / "saved_model.pb").write_bytes(b"another graph")
    assert _push(model, base, waits=False) == first + 2
    assert not list(base.glob(".*"))


def test_the_first_address_of_the_store_that_answers_is_used():
    with socket.create_server(("127.0.0.1", 0)) as server:
        answers = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert destinations._choose(["http://127.0.0.1:9", answers], "minio://b/m") == answers
    assert destinations._choose([], "s3://b/m") is None
    assert destinations._choose(["http://127.0.0.1:9"], "minio://b/m") == "http://127.0.0.1:9"


def test_a_store_at_none_of_its_addresses_is_an_error_that_names_them_and_the_setting(model):
    store = {"endpoints": ["http://127.0.0.1:9", "http://nowhere.invalid:9000"]}
    with pytest.raises(
        destinations.PushError,
        match=r"answers at http://127\.0\.0\.1:9 .* or http://nowhere\.invalid:9000 .*store\.endpoint",
    ):
        destinations.push(str(model), "minio://b/m", store)
