import json
import platform
from importlib.metadata import version

import pytest
from ml_metadata.proto import metadata_store_pb2

from components import metadata
from pipeline import code_digest
from pipeline.local import records
from settings import loading

MODULES = {"Trainer": ("models.trainer",), "Pusher": ("components.pusher.component",)}
SUMMARY = {
    **{"run": "a run", "seconds": 12.5, "blessed": True},
    "test": {"accuracy": 0.75, "corrupted_accuracy": 0.5},
    **{"hyperparameters": {"batch_size": 32}, "error": None},
}


def test_a_run_is_described_by_its_settings_environment_and_code():
    config = loading.load(overrides=["trainer.epochs=3"])
    described = records.describe(config, "cats", MODULES)
    assert (described["data"], described["model"]) == ("cats", config.model.architecture)
    assert {"key": "trainer.epochs", "value": 3, "origin": "--set"} in json.loads(described["settings"])
    assert described["python"] == platform.python_version()
    assert described["tensorflow"] == version("tensorflow")
    code = json.loads(described["code"])
    assert code["steps"] == {step: code_digest.digest(*names) for step, names in MODULES.items()}
    assert {"models.trainer", "models.training.loop", "components.pusher.executor"} <= code["modules"].keys()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "complete"),
        ({"component": "Trainer", "message": "no", "interrupted": False}, "failed"),
        ({"component": "Trainer", "message": "no", "interrupted": True}, "interrupted"),
    ],
)
def test_the_end_of_a_run_is_noted_beside_its_description(tmp_path, error, state):
    store = metadata.open_store(tmp_path / "metadata.sqlite")
    kind = store.put_context_type(metadata_store_pb2.ContextType(name="pipeline_run"))
    context = metadata_store_pb2.Context(type_id=kind, name="a run")
    context.custom_properties["data"].string_value = "cats"
    store.put_contexts([context])
    summary = {**SUMMARY, "error": error}
    records.end(store, summary)
    noted = store.get_context_by_type_and_name("pipeline_run", "a run").custom_properties
    assert (noted["data"].string_value, noted["state"].string_value) == ("cats", state)
    assert (noted["seconds"].double_value, noted["accuracy"].double_value) == (12.5, 0.75)
    assert (noted["corrupted_accuracy"].double_value, noted["blessed"].int_value) == (0.5, 1)
    assert json.loads(noted["summary"].string_value) == summary


def test_a_run_that_never_began_is_not_noted(tmp_path):
    store = metadata.open_store(tmp_path / "metadata.sqlite")
    records.end(store, {**SUMMARY, "run": ""})
    assert store.get_contexts() == []
