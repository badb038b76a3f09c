import os
import re
import time
from pathlib import Path

import pytest

from components.pusher import destinations
from serving import routing
from serving.routing import Routes


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


def test_a_push_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    def full(source, target, overwrite=False):
        del source, overwrite
        Path(target).write_bytes(b"")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(destinations.fileio, "copy", full)
    with pytest.raises(destinations.PushError, match=r"cannot push .*No space left .* MB are free there"):
        destinations.push(str(model), str(tmp_path / "m"), {})
    assert list((tmp_path / "m").iterdir()) == []


def test_what_a_killed_push_left_is_swept(model, tmp_path):
    left = tmp_path / "m" / ".1795717275.partial-x"
    left.mkdir(parents=True)
    (left / "variables").touch()
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
