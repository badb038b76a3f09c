import pytest
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from models import export
from pipeline import baseline


@pytest.fixture
def model(tmp_path):
    def exported(artifact_id, class_names="cat\ndog\n"):
        artifact = standard_artifacts.Model()
        artifact.id = artifact_id
        artifact.uri = str(tmp_path / str(artifact_id))
        if class_names:
            labels = tmp_path / path_utils.serving_model_path(artifact.uri) / export.LABELS_FILE
            labels.parent.mkdir(parents=True)
            labels.write_text(class_names)
        return artifact

    return exported


def _blessing(model, blessed):
    blessing = standard_artifacts.ModelBlessing()
    blessing.set_int_custom_property("current_model_id", model.id)
    blessing.set_int_custom_property("blessed", int(blessed))
    return blessing


def _resolve(models, blessings, candidate):
    strategy = baseline.LatestOtherBlessedModel()
    inputs = {"model": list(models), "model_blessing": blessings, "candidate": [candidate]}
    return [m.id for m in strategy.resolve_artifacts(None, inputs)["model"]]


def test_the_baseline_is_the_last_blessed_model(model):
    models = [model(i) for i in (1, 2, 3)]
    blessings = [_blessing(models[0], True), _blessing(models[1], True), _blessing(models[2], False)]
    assert _resolve(models, blessings, candidate=model(4)) == [2]


def test_a_blessed_candidate_is_not_its_own_baseline(model):
    models = [model(i) for i in (1, 2)]
    blessings = [_blessing(m, True) for m in models]
    assert _resolve(models, blessings, candidate=models[1]) == [1]


def test_a_first_model_has_no_baseline(model):
    first = model(1)
    assert _resolve([first], [], candidate=first) == []
    assert _resolve([first], [_blessing(first, True)], candidate=first) == []


@pytest.mark.parametrize("class_names", ["cat\ndog\nfrog\n", "dog\ncat\n", None])
def test_a_model_of_other_classes_or_without_files_is_not_a_baseline(model, class_names):
    models = [model(1), model(2, class_names)]
    blessings = [_blessing(m, True) for m in models]
    assert _resolve(models, blessings, candidate=model(3)) == [1]
