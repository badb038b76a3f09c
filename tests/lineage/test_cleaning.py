import shutil
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from lineage import lock
from settings.places import METADATA_FILE
from tests.lineage.conftest import FAILED, FIRST, LAST, WORSE


@pytest.fixture
def copied(root, tmp_path):
    """A copy at the same place would be another root: moves the files of the root aside and back."""
    backup = shutil.copytree(root, tmp_path / "backup")
    yield root
    shutil.rmtree(root)
    shutil.copytree(backup, root)


def _uri(ask, root, run, kind):
    return Path(next(row["uri"] for row in ask(root, "show", run)["artifacts"] if row["type"] == kind))


def _findings(ask, root, *arguments, fails=True):
    found = ask(root, "check", *arguments, fails=fails)["findings"]
    return [(each["problem"], each["what"]) for each in found]


def test_check_finds_what_is_missing_changed_orphaned_and_not_ended(ask, copied, ids):
    never_ended = [("never ended", _findings(ask, copied)[0][1])]
    assert _findings(ask, copied) == never_ended
    assert never_ended[0][1].startswith("Trainer, execution ")
    assert _findings(ask, copied, ids[FIRST], fails=False) == []

    (_uri(ask, copied, ids[FIRST], "Model") / "content").write_text("something else")
    shutil.rmtree(_uri(ask, copied, ids[FIRST], "ModelRun"))
    (copied / "pipelines/tiny/Trainer/model/9999").mkdir()
    found = _findings(ask, copied)
    assert [problem for problem, _ in found] == ["changed", "missing", "orphaned", "never ended"]
    assert found[0][1].startswith("Model #")
    assert _findings(ask, copied, ids[FIRST]) == found[:2]


def test_check_finds_a_changed_pushed_version(ask, copied, ids):
    version = Path(ask(copied, "serving")["versions"][0]["place"])
    (version / "content").write_text("something else")
    (found,) = _findings(ask, copied, ids[FIRST])
    assert found[0] == "changed" and found[1].startswith("pushed version of PushedModel")


@pytest.mark.parametrize(
    "arguments", [("check",), ("clean", "--keep", "1"), ("clean", "--keep", "1", "--yes")]
)
def test_a_root_that_was_copied_keeps_its_files(ask, root, tmp_path, arguments):
    elsewhere = shutil.copytree(root, tmp_path / "elsewhere")
    before = sorted(elsewhere.rglob("*"))
    message = ask(elsewhere, *arguments, fails=True)
    assert f"{elsewhere} was copied or moved: its store has the folders of {root}, so" in message
    assert sorted(elsewhere.rglob("*")) == before


def test_clean_lists_without_taking_away(ask, copied, ids):
    before = sorted(copied.rglob("*"))
    planned = ask(copied, "clean", "--keep", "1")
    assert planned["done"] is False
    assert planned["bytes_after"] < planned["bytes_before"]
    assert sorted(copied.rglob("*")) == before


def test_clean_keeps_what_the_living_came_from(ask, copied, ids):
    orphan = copied / "pipelines/tiny/Trainer/model/9999"
    orphan.mkdir()
    checkpoints = copied / "pipelines/tiny/Trainer/checkpoints/abc"
    checkpoints.mkdir(parents=True)
    uris = {run: _uri(ask, copied, ids[run], "Model") for run in (FIRST, WORSE, FAILED, LAST)}
    runs_before = ask(copied, "runs")
    data = _uri(ask, copied, ids[FIRST], "components.DatasetDirectory")
    cleaned = ask(copied, "clean", "--keep", "1", "--yes")
    assert cleaned["done"] is True
    # The first model is pushed, the last one belongs to the newest run.
    assert [uris[run].exists() for run in (FIRST, WORSE, FAILED, LAST)] == [True, False, False, True]
    assert not orphan.exists() and checkpoints.exists() and data.exists()
    kinds = ["Examples", "TransformGraph", "ModelBlessing", "components.ModelReport"]
    for kind in (*kinds, "ExampleStatistics", "ExampleAnomalies", "components.DataGateReport"):
        assert _uri(ask, copied, ids[FIRST], kind).exists()
    assert all(Path(row["place"]).is_dir() for row in ask(copied, "serving")["versions"])
    # The records stay, and say that the files are gone.
    assert ask(copied, "runs") == runs_before
    states = {row["type"]: row["state"] for row in ask(copied, "show", ids[WORSE])["artifacts"]}
    assert (states["Model"], states["Examples"]) == ("deleted", "live")
    assert [problem for problem, _ in _findings(ask, copied)] == ["never ended"]
    assert ask(copied, "clean", "--keep", "1")["artifacts"] == []


def test_clean_keeps_no_model_for_a_pushed_version_that_is_gone(ask, copied, ids):
    model = _uri(ask, copied, ids[FIRST], "Model")
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(copied / METADATA_FILE)
    store = mlmd.MetadataStore(config)
    pushed = store.get_artifacts_by_type("PushedModel")
    # As the next run does if somebody has removed the first version.
    first = min((each for each in pushed if each.custom_properties["pushed"].int_value), key=lambda a: a.id)
    first.state = pb.Artifact.DELETED
    store.put_artifacts([first])
    assert str(model) in {each["uri"] for each in ask(copied, "clean", "--keep", "1")["artifacts"]}


def test_clean_counts_a_file_with_two_names_once(ask, copied, ids):
    def sizes():
        planned = ask(copied, "clean", "--keep", "1")
        return planned["bytes_before"], planned["bytes_after"]

    before, after = sizes()
    gone, kept = _uri(ask, copied, ids[WORSE], "Model"), _uri(ask, copied, ids[LAST], "Model")
    (gone / "large").write_bytes(b"x" * 10_000)
    (gone / "again").hardlink_to(gone / "large")
    assert sizes() == (before + 10_000, after)
    (kept / "shared").hardlink_to(gone / "large")  # which then stays
    assert sizes() == (before + 10_000, after + 10_000)


def test_clean_refuses_while_a_run_uses_the_root(ask, copied):
    before = (copied / METADATA_FILE).read_bytes()
    with lock.exclusive(copied):
        assert "another run is using" in ask(copied, "clean", "--keep", "1", "--yes", fails=True)
    assert (copied / METADATA_FILE).read_bytes() == before
