import pytest
from typer.testing import CliRunner

from serving import routing, versions
from serving.routing import Routes
from tests.serving import samples

SEE = "; see /v1/models/m of the server\n"


@pytest.fixture
def model(tmp_path):
    """The folder of model m with versions 1 to 3, of which the commands look at the names only."""
    for version in (1, 2, 3):
        samples.pretend(tmp_path / "m" / str(version))
    (tmp_path / "m/4").mkdir()  # not complete
    (tmp_path / "m/4/saved_model.pb").touch()
    return tmp_path / "m"


def run(model, *arguments, code=0):
    result = CliRunner().invoke(versions.app, [*arguments, "--models", str(model.parent)])
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


def test_promote_and_rollback(model):
    assert run(model, "promote", "2") == "m: version 2 is to answer instead of 3" + SEE
    assert routing.read(model) == Routes(stable=2, previous=3)
    assert run(model, "promote", "2") == "m: version 2 is to answer" + SEE
    assert routing.read(model) == Routes(stable=2, previous=3)
    assert run(model, "promote", "1") == "m: version 1 is to answer instead of 2" + SEE
    assert run(model, "rollback") == "m: version 2 is to answer again instead of 1" + SEE
    assert routing.read(model) == Routes(stable=2, previous=1)
    assert run(model, "promote", "newest") == "m: the newest version is to answer, now 3" + SEE
    assert routing.read(model) == Routes(previous=2)
    assert run(model, "rollback") == "m: version 2 is to answer again instead of 3" + SEE


def test_the_first_rollback_returns_to_the_version_before_the_newest(model):
    run(model, "promote", "newest")
    assert run(model, "rollback") == "m: version 2 is to answer again instead of 3" + SEE
    assert routing.read(model) == Routes(stable=2, previous=3)


def test_there_is_nothing_to_return_to(model):
    run(model, "promote", "1")
    (model / "versions.json").unlink()
    for version in (2, 3):
        (model / str(version) / "saved_model.pb").unlink()
    assert run(model, "rollback", code=1) == "error: m: there is no version to return to from 1\n"


def test_canary(model):
    output = run(model, "canary", "3", "--percent", "25")
    assert output == "m: version 3 is to answer 25 % of the requests, 2 the others" + SEE
    assert routing.read(model) == Routes(stable=2, canary=3, percent=25)
    run(model, "canary", "3", "--percent", "50")
    assert routing.read(model).percent == 50
    assert "2 answers until another one" in run(model, "canary", "none")
    assert routing.read(model) == Routes(stable=2)
    run(model, "canary", "newest")
    assert routing.read(model) == Routes(stable=2, canary=3, percent=10)
    # Promoting it, or going back, ends it.
    run(model, "promote", "3")
    assert routing.read(model) == Routes(stable=3, previous=2)
    run(model, "canary", "1")
    run(model, "rollback")
    assert routing.read(model) == Routes(stable=2, previous=3)


def test_shadow(model):
    assert run(model, "shadow", "2") == "m: version 2 is to compute the requests that 3 answers" + SEE
    assert routing.read(model) == Routes(stable=3, shadow=2)
    run(model, "promote", "2")
    assert routing.read(model) == Routes(stable=2, previous=3)
    run(model, "shadow", "newest")
    run(model, "promote", "1")
    assert routing.read(model) == Routes(stable=1, shadow=3, previous=2)
    # The canary may be the shadow, too.
    run(model, "canary", "3")
    assert routing.read(model) == Routes(stable=1, canary=3, percent=10, shadow=3, previous=2)
    run(model, "promote", "3")
    assert routing.read(model) == Routes(stable=3, previous=1)
    run(model, "shadow", "2")
    run(model, "shadow", "none")
    assert routing.read(model) == Routes(stable=3, previous=1)


def test_list(model):
    rows = [line.split(maxsplit=1) for line in run(model, "list").splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["3", "2", "1"]
    assert rows[0][1].strip() == "stable, as the newest"
    run(model, "canary", "3", "--percent", "5")
    run(model, "shadow", "1")
    output = run(model, "list")
    assert "canary, 5 %" in output
    assert "shadow" in output
    assert "m" in output.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "9"], "m has no version 9; expected one of 3, 2, 1"),
        (
            ["promote", "4"],
            "m: version 4 is not complete: there is no variables/variables.index and no "
            "variables/variables.data-* in it",
        ),
        (["shadow", "3"], "a shadow is compared with another version that answers; 3 answers itself"),
        (["promote", "x"], "m has no version x"),
        (["canary", "9"], "m has no version 9"),
        (["shadow", "-"], "m has no version -"),
        (["list", "--model", "n"], "expected --model with one of m; found n"),
    ],
)
def test_wrong_arguments_change_nothing(model, arguments, message):
    output = run(model, *arguments, code=1)
    assert output.startswith("error: ")
    assert message in output
    assert not (model / "versions.json").exists()


def test_wrong_percent_and_commands(model):
    for arguments in (
        ["canary", "3", "--percent", "101"],
        ["canary", "3", "--percent", "-1"],
        ["demote", "1"],
        ["promote"],
    ):
        run(model, *arguments, code=2)
    assert not (model / "versions.json").exists()


def test_the_version_that_answers_cannot_be_tried(model):
    run(model, "promote", "3")
    assert "a canary needs another version" in run(model, "canary", "3", code=1)
    assert "compared with another version" in run(model, "shadow", "3", code=1)


def test_models_that_are_not_there(tmp_path):
    assert "expected a folder of pushed models" in run(tmp_path / "none/m", "list", code=1)
    (tmp_path / "models").mkdir()
    assert "expected pushed models; found none" in run(tmp_path / "models/m", "list", code=1)
    samples.pretend(tmp_path / "models/m/1")
    message = f"error: --models {tmp_path}/models/m is the folder of the model m; expected the folder that "
    assert message in run(tmp_path / "models/m/1", "list", code=1)


def test_one_of_several_models_has_to_be_named(model):
    other = model.parent / "other/7"
    samples.pretend(other)
    assert "expected --model with one of m, other; found none" in run(model, "promote", "1", code=1)
    run(model, "promote", "7", "--model", "other")
    assert routing.read(other.parent) == Routes(stable=7)


def test_a_file_that_is_wrong_is_named(model):
    (model / "versions.json").write_text("{")
    assert f"{model}/versions.json: expected routes" in run(model, "promote", "1", code=1).replace("\n", "")


def test_no_version_answers_until_one_is_promoted(model):
    routing.write(model, Routes(stable=routing.NO_VERSION))
    listed = run(model, "list")
    assert "stable" not in listed
    assert listed.endswith("No version answers until one is promoted.\n")
    assert "there is no version to return to from none" in run(model, "rollback", code=1)
    assert "a canary needs another version" in run(model, "canary", "3", code=1)
    assert "compared with another version" in run(model, "shadow", "3", code=1)
    assert run(model, "shadow", "none") == "m: no shadow; no version answers until one is promoted\n"
    assert run(model, "promote", "1") == "m: version 1 is to answer" + SEE
    assert routing.read(model) == Routes(stable=1)
