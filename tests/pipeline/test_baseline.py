import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import metadata
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


@pytest.fixture
def recorded(tmp_path):
    """A store with three models, of which the first two are blessed, and the ids of all artifacts."""
    store = metadata.open_store(tmp_path / "metadata.sqlite")
    context_type = store.put_context_type(metadata_store_pb2.ContextType(name="pipeline"))
    (context,) = store.put_contexts([metadata_store_pb2.Context(type_id=context_type, name="p")])

    def record(type_name, uri, **properties):
        type_id = store.put_artifact_type(metadata_store_pb2.ArtifactType(name=type_name))
        artifact = metadata_store_pb2.Artifact(
            type_id=type_id, uri=uri, state=metadata_store_pb2.Artifact.LIVE
        )
        for key, value in properties.items():
            artifact.custom_properties[key].int_value = value
        (artifact_id,) = store.put_artifacts([artifact])
        attribution = metadata_store_pb2.Attribution(context_id=context, artifact_id=artifact_id)
        store.put_attributions_and_associations([attribution], [])
        return artifact_id

    models = [record("Model", f"models/{number}") for number in (1, 2, 3)]
    blessings = [
        record("ModelBlessing", f"blessings/{number}", current_model_id=model, blessed=int(number < 3))
        for number, model in enumerate(models, start=1)
    ]
    return store, models, blessings


def _lose(store, artifact_id):
    (artifact,) = store.get_artifacts_by_id([artifact_id])
    artifact.state = metadata_store_pb2.Artifact.DELETED
    store.put_artifacts([artifact])


def test_nothing_is_lost_while_the_newest_blessed_model_is_there(recorded):
    store, (first, second, third), _ = recorded
    assert baseline.describe_lost(store, "p", second, third) is None
    _lose(store, first)
    assert baseline.describe_lost(store, "p", second, third) is None


@pytest.mark.parametrize("lost", ["model", "blessing"])
def test_a_lost_model_or_blessing_is_named_with_what_is_done_instead(recorded, lost):
    store, (first, second, third), blessings = recorded
    _lose(store, second if lost == "model" else blessings[1])
    found = baseline.describe_lost(store, "p", first, third)
    assert "models/2" in found
    assert "the last one that is still there is the baseline" in found
    _lose(store, first)
    found = baseline.describe_lost(store, "p", None, third)
    assert "models/2" in found
    assert "there is no baseline, and the gates that limit a drop do not apply" in found


def test_a_lost_candidate_or_a_model_that_was_not_blessed_is_not_missed(recorded):
    store, (first, second, third), _ = recorded
    _lose(store, second)
    _lose(store, third)
    assert baseline.describe_lost(store, "p", first, second) is None
