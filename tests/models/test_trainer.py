import json
from pathlib import Path

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from models import export, reliability, step, trainer
from models.training import checkpoint, progress
from models.training.run import TrainingDivergedError
from tests.models import samples
from tests.models.conftest import KilledError, write_transform_graph


def tuned(**values):
    """Returns what TFX passes from the Tuner to the Trainer if these values were the best."""
    best = keras_tuner.HyperParameters()
    if "learning_rate" in values:
        best.Float("trainer.learning_rate", 1e-4, 1e-1, sampling="log")
    if "batch_size" in values:
        best.Choice("trainer.batch_size", [8, 16])
    if "dropout" in values:
        best.Float("model.cnn.dropout", 0, 0.5)
    sections = {"dropout": "model.cnn"}
    best.values.update({f"{sections.get(name, 'trainer')}.{name}": value for name, value in values.items()})
    return best.get_config()


def test_hyperparameters_name_the_source_of_each_value():
    from_config = {"value": 16, "source": "config"}
    settings = samples.small_settings()
    assert trainer.hyperparameters(settings, None) == {
        "trainer.learning_rate": {"value": 0.01, "source": "config"},
        "trainer.batch_size": from_config,
    }
    assert trainer.hyperparameters(settings, tuned(learning_rate=0.02)) == {
        "trainer.learning_rate": {"value": 0.02, "source": "tuner"},
        "trainer.batch_size": from_config,
    }


def test_run_fn_trains_with_the_tuned_values_and_exports(fn_args):
    # Through JSON, as TFX passes it between components.
    best = json.loads(json.dumps(tuned(learning_rate=0.02, batch_size=8, dropout=0.25)))
    settings = samples.small_settings(trainer={"epochs": 3, "schedule": "constant", "warmup_fraction": 0.0})
    arguments = fn_args(settings, hyperparameters=best)
    trainer.run_fn(arguments)

    run = Path(arguments.model_run_dir)
    assert json.loads((run / "hyperparameters.json").read_text()) == {
        "trainer.learning_rate": {"value": 0.02, "source": "tuner"},
        "trainer.batch_size": {"value": 8, "source": "tuner"},
        "model.cnn.dropout": {"value": 0.25, "source": "tuner"},
    }
    history = json.loads((run / "history.json").read_text())
    np.testing.assert_allclose([epoch["learning_rate"] for epoch in history["epochs"]], 0.02, rtol=1e-6)

    check_served_accuracy(arguments, history)
    # The served probabilities are those that the val split was calibrated to.
    fitted = history["calibration"]
    assert (fitted["method"], fitted["images"]) == ("temperature", 30)
    loaded = tf.saved_model.load(arguments.serving_model_dir)
    records = tf.data.TFRecordDataset(
        tf.io.gfile.glob(arguments.eval_files[0]), compression_type="GZIP"
    ).batch(100)
    examples = next(iter(records))
    parsed = tf.io.parse_example(examples, {"label": tf.io.FixedLenFeature([], tf.int64)})
    served = loaded.signatures["serving_default"](examples=examples)["probabilities"].numpy()
    uncalibrated = special.softmax(fitted["temperature"] * np.log(served), axis=1)
    before = reliability.measure(parsed["label"].numpy(), uncalibrated)
    assert before["loss"] == pytest.approx(fitted["before"]["loss"], abs=1e-4)


def check_served_accuracy(arguments, history):
    """Asserts that the served model, given raw examples, has the accuracy of the validation."""
    served = tf.saved_model.load(arguments.serving_model_dir).signatures["serving_default"]
    records = tf.data.TFRecordDataset(
        tf.io.gfile.glob(arguments.eval_files[0]), compression_type="GZIP"
    ).batch(100)
    examples = next(iter(records))
    labels = tf.io.parse_example(examples, {"label": tf.io.FixedLenFeature([], tf.int64)})["label"]
    accuracy = np.mean(served(examples=examples)["class_id"] == labels)
    np.testing.assert_allclose(accuracy, history["epochs"][history["best"]]["val_accuracy"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        (
            "mobilenetv2",
            {
                "alpha": 0.35,
                "feature_layers": ["block_13_expand_relu", "block_16_project_BN"],
                "fine_tune_from": "block_16_expand",
            },
        ),
        ("efficientnetv2b0", {"fine_tune_from": "block6h_expand_conv"}),
    ],
)
def test_run_fn_trains_both_phases_of_a_pretrained_network_and_exports_it(
    fn_args, raw_examples, request, tmp_path, architecture, config
):
    # The images have 16 pixels; Transform resizes them, and so does the served model.
    transform = tmp_path / "transform"
    write_transform_graph(raw_examples.schema, raw_examples.directory, transform, side=32)
    weights, _ = request.getfixturevalue(f"{architecture}_weights")
    network = {**config, "weights": str(weights), "fine_tune_epochs": 1}
    settings = samples.small_settings(
        model={"architecture": architecture, "image_size": 32, architecture: network},
        augmentation={"rotation_degrees": 5.0, "shift_fraction": 0.1, "flip": True},
        trainer={"epochs": 2},
    )
    arguments = fn_args(settings, transform_graph_path=str(transform))
    trainer.run_fn(arguments)
    history = json.loads((Path(arguments.model_run_dir) / "history.json").read_text())
    assert [epoch["phase"] for epoch in history["epochs"]] == ["training", "training", "fine-tuning"]
    check_served_accuracy(arguments, history)


def test_a_run_resumes_the_training_of_a_killed_run(fn_args, tmp_path, monkeypatch, caplog):
    def run(number, settings):
        # Each run has its own folder, as in TFX.
        arguments = fn_args(settings, model_run_dir=str(tmp_path / "Trainer" / "model_run" / number))
        trainer.run_fn(arguments)
        return json.loads((Path(arguments.model_run_dir) / "history.json").read_text())["epochs"]

    def kill(*_, **__):
        raise KilledError

    save = checkpoint.Checkpoint.save

    def save_with_1000_more_seconds(self, state):
        state.progress["seconds"] += 1000
        save(self, state)

    settings = samples.small_settings(trainer={"epochs": 3})
    checkpoints = tmp_path / "Trainer" / step.CHECKPOINTS
    with monkeypatch.context() as patched:
        patched.setattr(export, "export", kill)
        patched.setattr(checkpoint.Checkpoint, "save", save_with_1000_more_seconds)
        with pytest.raises(KilledError):
            run("1", settings)
        assert len(list(checkpoints.iterdir())) == 1
        # A run with other settings does not resume from this checkpoint.
        with pytest.raises(KilledError):
            run("2", samples.small_settings(trainer={"epochs": 2}))
        assert len(list(checkpoints.iterdir())) == 2
    first = json.loads((tmp_path / "Trainer/model_run/1/history.json").read_text())["epochs"]
    caplog.set_level("INFO", "models")
    assert run("3", settings) == first
    assert "training: resumes after epoch 3" in caplog.messages
    environment = json.loads((tmp_path / "Trainer/model_run/3/environment.json").read_text())
    assert 1000 < environment["training_seconds"] < 1600
    assert len(list(checkpoints.iterdir())) == 1  # that of the run with other settings


def test_a_diverging_training_leaves_no_checkpoint(fn_args, tmp_path, monkeypatch):
    checkpoints = tmp_path / "Trainer" / step.CHECKPOINTS
    saved = []

    def diverge_in_the_second_epoch(phase, name, value, where):
        if where.startswith("epoch 2,"):
            saved.extend(checkpoints.iterdir())
            raise TrainingDivergedError

    monkeypatch.setattr(progress, "check_finite", diverge_in_the_second_epoch)
    arguments = fn_args(
        samples.small_settings(trainer={"epochs": 3}),
        model_run_dir=str(tmp_path / "Trainer" / "model_run" / "1"),
    )
    with pytest.raises(TrainingDivergedError):
        trainer.run_fn(arguments)
    assert len(saved) == 1
    assert not list(checkpoints.iterdir())
