import json
from pathlib import Path

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from models import export, trainer
from models.training import checkpoint, progress
from models.training.run import TrainingDivergedError
from settings.training import TrainerConfig
from tests.models import samples
from tests.models.conftest import KilledError, write_transform_graph

CONFIG = TrainerConfig(learning_rate=0.01, batch_size=16)


def tuned(**values):
    made = keras_tuner.HyperParameters()
    if "learning_rate" in values:
        made.Float("learning_rate", 1e-4, 1e-1, sampling="log")
    if "batch_size" in values:
        made.Choice("batch_size", [8, 16])
    made.values.update(values)
    return made.get_config()


def test_hyperparameters_say_where_each_value_comes_from():
    from_config = {"value": 16, "source": "config"}
    assert trainer.hyperparameters(CONFIG, None) == {
        "learning_rate": {"value": 0.01, "source": "config"},
        "batch_size": from_config,
    }
    assert trainer.hyperparameters(CONFIG, tuned(learning_rate=0.02)) == {
        "learning_rate": {"value": 0.02, "source": "tuner"},
        "batch_size": from_config,
    }


def test_run_fn_trains_with_the_tuned_values_and_exports(fn_args):
    # In JSON, as it passes between TFX's components.
    best = json.loads(json.dumps(tuned(learning_rate=0.02, batch_size=8)))
    settings = samples.small_settings(trainer={"epochs": 3, "schedule": "constant", "warmup_fraction": 0.0})
    arguments = fn_args(settings, hyperparameters=best)
    trainer.run_fn(arguments)

    run = Path(arguments.model_run_dir)
    assert json.loads((run / "hyperparameters.json").read_text()) == {
        "learning_rate": {"value": 0.02, "source": "tuner"},
        "batch_size": {"value": 8, "source": "tuner"},
    }
    history = json.loads((run / "history.json").read_text())
    np.testing.assert_allclose([epoch["learning_rate"] for epoch in history["epochs"]], 0.02, rtol=1e-6)

    check_what_is_served(arguments, history)


def check_what_is_served(arguments, history):
    """What was validated is what is served: the same accuracy, from raw examples on."""
    served = tf.saved_model.load(arguments.serving_model_dir).signatures["serving_default"]
    records = tf.data.TFRecordDataset(
        tf.io.gfile.glob(arguments.eval_files[0]), compression_type="GZIP"
    ).batch(100)
    examples = next(iter(records))
    labels = tf.io.parse_example(examples, {"label": tf.io.FixedLenFeature([], tf.int64)})["label"]
    accuracy = np.mean(served(examples=examples)["class_id"] == labels)
    np.testing.assert_allclose(accuracy, history["epochs"][history["best"]]["val_accuracy"], atol=1e-6)


def test_run_fn_trains_both_phases_of_mobilenetv2_and_exports_it(
    fn_args, raw_examples, mobilenetv2_weights, tmp_path
):
    # Images of 16 pixels, which Transform, and the served model, make larger.
    transform = tmp_path / "transform"
    write_transform_graph(raw_examples.schema, raw_examples.directory, transform, side=32)
    config = {
        "alpha": 0.35,
        "weights": str(mobilenetv2_weights[0]),
        "feature_layers": ["block_13_expand_relu", "block_16_project_BN"],
        "fine_tune_from": "block_16_expand",
        "fine_tune_epochs": 1,
    }
    settings = samples.small_settings(
        model={"architecture": "mobilenetv2", "image_size": 32, "mobilenetv2": config},
        augmentation={"rotation_degrees": 5.0, "shift_fraction": 0.1, "flip": True},
        trainer={"epochs": 2},
    )
    arguments = fn_args(settings, transform_graph_path=str(transform))
    trainer.run_fn(arguments)
    history = json.loads((Path(arguments.model_run_dir) / "history.json").read_text())
    assert [epoch["phase"] for epoch in history["epochs"]] == ["training", "training", "fine-tuning"]
    check_what_is_served(arguments, history)


def test_a_run_goes_on_with_the_training_of_one_that_was_killed(fn_args, tmp_path, monkeypatch, caplog):
    def run(number, settings):
        # As TFX does: a folder of its own for each run.
        arguments = fn_args(settings, model_run_dir=str(tmp_path / "Trainer" / "model_run" / number))
        trainer.run_fn(arguments)
        return json.loads((Path(arguments.model_run_dir) / "history.json").read_text())["epochs"]

    def die(*_, **__):
        raise KilledError

    save = checkpoint.Checkpoint.save

    def save_as_slow(self, state):
        state.progress["seconds"] += 1000
        save(self, state)

    settings = samples.small_settings(trainer={"epochs": 3})
    checkpoints = tmp_path / "Trainer" / trainer.CHECKPOINTS
    with monkeypatch.context() as patched:
        patched.setattr(export, "export", die)
        patched.setattr(checkpoint.Checkpoint, "save", save_as_slow)
        with pytest.raises(KilledError):
            run("1", settings)
        assert len(list(checkpoints.iterdir())) == 1
        # Of other settings nothing is taken up.
        with pytest.raises(KilledError):
            run("2", samples.small_settings(trainer={"epochs": 2}))
        assert len(list(checkpoints.iterdir())) == 2
    first = json.loads((tmp_path / "Trainer/model_run/1/history.json").read_text())["epochs"]
    caplog.set_level("INFO", "models")
    assert run("3", settings) == first
    assert "training: resumes after epoch 3" in caplog.messages
    environment = json.loads((tmp_path / "Trainer/model_run/3/environment.json").read_text())
    assert 1000 < environment["training_seconds"] < 1600
    assert len(list(checkpoints.iterdir())) == 1  # of the other settings


def test_a_training_that_diverges_leaves_no_checkpoint(fn_args, tmp_path, monkeypatch):
    checkpoints = tmp_path / "Trainer" / trainer.CHECKPOINTS
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
