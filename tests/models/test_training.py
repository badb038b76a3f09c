import json
import logging
import math

import keras
import numpy as np
import pytest

from models import input, mobilenetv2, training
from tests.models import samples


@pytest.fixture(scope="module")
def images():
    return samples.colored(60, 8, seed=0), samples.colored(30, 8, seed=1)


def train(settings, images, directory, **options):
    return training.train(settings, *images, len(samples.CLASS_NAMES), str(directory), **options)


def val_loss(model, images, smoothing=0.0):
    pixels = images.pixels.astype(np.float32) / np.float32(255)
    return float(
        np.mean(training.CrossEntropy(smoothing).call(images.labels, model.predict(pixels, verbose=0)))
    )


def test_cosine_schedule_is_the_closed_form():
    schedule = training.Schedule("cosine", peak=0.4, steps=100, warmup_steps=20)
    for step, expected in {0: 0.4 / 20, 9: 0.2, 19: 0.4, 20: 0.4, 60: 0.2, 100: 0.0, 120: 0.0}.items():
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)
    assert float(schedule(40)) == pytest.approx(0.2 * (1 + math.cos(math.pi / 4)))


def test_linear_schedule_rises_and_falls_in_straight_lines():
    schedule = training.Schedule("linear", peak=0.4, steps=100, warmup_steps=20)
    expected = {0: 0.4 / 20, 19: 0.4, 20: 0.4, 40: 0.3, 60: 0.2, 100: 0.0, 120: 0.0}
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-7)


def test_constant_schedule_stays_at_the_peak_after_warm_up():
    schedule = training.Schedule("constant", peak=0.3, steps=10, warmup_steps=3)
    np.testing.assert_allclose(
        [float(schedule(s)) for s in (0, 1, 2, 3, 9)], [0.1, 0.2, 0.3, 0.3, 0.3], rtol=1e-6
    )
    assert float(training.Schedule("constant", 0.3, 10, 0)(0)) == pytest.approx(0.3)


def test_label_smoothing_is_the_closed_form_and_keras_own():
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], np.float32)
    labels = np.array([0, 2])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for smoothing in (0.0, 0.1):
        targets = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
        expected = -(targets * np.log(probabilities)).sum(axis=1)
        np.testing.assert_allclose(training.CrossEntropy(smoothing).call(labels, logits), expected, rtol=1e-6)
        keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        assert float(training.CrossEntropy(smoothing)(labels, logits)) == pytest.approx(
            float(keras_loss(np.eye(3)[labels], logits))
        )


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    settings = samples.small_settings(trainer={"epochs": 4, "label_smoothing": 0.1})
    return settings, directory, *train(settings, images, directory)


def test_a_network_learns(trained):
    assert trained[3].best.val_accuracy > 0.9


def test_the_history_is_complete_and_on_disk(trained):
    settings, directory, _, history = trained
    content = json.loads((directory / "history.json").read_text())
    assert [epoch["epoch"] for epoch in content["epochs"]] == [1, 2, 3, 4]
    assert content["epochs"][content["best"]]["val_loss"] == history.best.val_loss
    fields = {"phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"}
    assert set(content["epochs"][0]) == fields | {"learning_rate", "seconds", "images_per_second"}
    # 60 images in batches of 16 are 4 steps an epoch; the last epoch's last step is step 15 of 16.
    schedule = training.Schedule("cosine", settings.trainer.learning_rate, 16, round(0.05 * 16))
    for number, epoch in enumerate(content["epochs"], start=1):
        assert epoch["learning_rate"] == pytest.approx(float(schedule(4 * number - 1)))
    assert list(directory.glob("tensorboard/training/*/events*"))
    assert not list(directory.glob(".history*"))


def test_the_model_has_the_weights_of_the_best_epoch(trained, images):
    _, _, model, history = trained
    assert val_loss(model, images[1], smoothing=0.1) == pytest.approx(history.best.val_loss, rel=1e-4)


def test_the_best_weights_are_kept_exactly_also_when_later_epochs_are_worse(images, monkeypatch, tmp_path):
    copies = []
    offered = training.BestWeights.offer

    def offer(self, model, _):
        copies.append(model.get_weights())
        return offered(self, model, losses[len(copies) - 1])

    monkeypatch.setattr(training.BestWeights, "offer", offer)
    losses = [3.0, 1.0, 2.0, 1.5]
    model, _ = train(samples.small_settings(trainer={"epochs": 4}), images, tmp_path)
    for kept, expected in zip(model.get_weights(), copies[1], strict=True):
        np.testing.assert_array_equal(kept, expected)
    assert any(np.any(a != b) for a, b in zip(copies[1], copies[3], strict=True))


def test_training_stops_early_and_says_so(images, tmp_path, caplog):
    # Labels of the validation split that contradict training: its loss can only rise.
    wrong = input.Images(images[1].pixels, (images[1].labels + 1) % 3)
    settings = samples.small_settings(
        trainer={"epochs": 12, "early_stopping_patience": 2, "schedule": "constant", "learning_rate": 0.03}
    )
    caplog.set_level(logging.INFO, "models.training")
    model, history = train(settings, (images[0], wrong), tmp_path)
    assert len(history.epochs) == history.best.epoch + 2 < 12
    assert len(json.loads((tmp_path / "history.json").read_text())["epochs"]) == len(history.epochs)
    assert val_loss(model, wrong) == pytest.approx(history.best.val_loss, rel=1e-4)
    assert "stopped early" in caplog.text


def test_progress_is_logged_within_an_epoch(images, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_MESSAGES", 0.0)
    caplog.set_level(logging.INFO, "models.training")
    train(samples.small_settings(trainer={"epochs": 1}), images, tmp_path)
    assert "training: epoch 1/1, step 2/4, loss " in caplog.text
    assert caplog.messages[-1].startswith("training: epoch 1/1 in ")


def test_divergence_is_an_error_at_once(images, tmp_path):
    settings = samples.small_settings(
        model={"cnn": {"filters": (4,), "batch_normalization": False}}, trainer={"learning_rate": 1e30}
    )
    with pytest.raises(
        training.TrainingDivergedError, match=r"loss is (nan|inf) in epoch 1, .*rate of 1e\+30"
    ):
        train(settings, images, tmp_path)


def test_given_learning_rate_and_batch_size_win_over_the_configured_ones(images, tmp_path):
    settings = samples.small_settings(trainer={"epochs": 1, "schedule": "constant", "warmup_fraction": 0.0})
    _, history = train(settings, images, tmp_path, learning_rate=0.002, batch_size=7)
    assert history.epochs[0].learning_rate == pytest.approx(0.002)
    (phase,) = training.phases(settings, 0.002, 7)
    assert (phase.learning_rate, phase.batch_size) == (0.002, 7)
    (phase,) = training.phases(settings)
    assert (phase.learning_rate, phase.batch_size) == (0.01, 16)


def test_the_same_seed_gives_the_same_model(images, tmp_path):
    settings = samples.small_settings(trainer={"epochs": 1}, augmentation={"shift_fraction": 0.1})
    first, second = (train(settings, images, tmp_path)[0].get_weights() for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_mixed_precision_computes_in_bfloat16_and_restores_the_policy(images, tmp_path):
    settings = samples.small_settings(trainer={"epochs": 1, "precision": "mixed_bfloat16"})
    model, _ = train(settings, images, tmp_path)
    assert keras.config.dtype_policy().name == "float32"
    assert model.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert model.get_layer("block1_conv1").kernel.dtype == "float32"
    assert model.output.dtype == "float32"


def test_an_empty_split_and_impossible_labels_are_refused(images, tmp_path):
    empty = input.Images(np.empty((0, 8, 8, 3), np.uint8), np.empty(0, np.int64))
    with pytest.raises(ValueError, match="val split is empty"):
        train(samples.small_settings(), (images[0], empty), tmp_path)
    with pytest.raises(ValueError, match="train split has labels from 0 to 2, expected 0 to 1"):
        training.train(samples.small_settings(), *images, 2, str(tmp_path))


@pytest.fixture
def small_backbone(monkeypatch, tmp_path):
    """Stands in for MobileNetV2, of which two phases take half a minute; returns the path of its weights."""

    def build_backbone(input_shape, name, **_):
        inputs = x = keras.Input(input_shape)
        for block in (1, 2):
            x = keras.layers.Conv2D(4, 3, strides=4, name=f"block_{block}")(x)
            x = keras.layers.BatchNormalization(name=f"block_{block}_bn")(x)
        return keras.Model(inputs, x, name=name)

    monkeypatch.setattr(keras.applications, "MobileNetV2", build_backbone)
    monkeypatch.setattr(mobilenetv2, "_load", lambda *_: None)
    path = tmp_path / "weights.h5"
    path.touch()
    return str(path)


def test_mobilenetv2_trains_its_head_and_then_its_top_and_keeps_the_best(
    small_backbone, tmp_path, monkeypatch
):
    images = samples.colored(24, 32, seed=0), samples.colored(12, 32, seed=1)
    config = {
        "weights": small_backbone,
        "fine_tune_epochs": 2,
        "fine_tune_from": "block_2",
        "fine_tune_rate": 0.5,
    }
    settings = samples.small_settings(
        model={"architecture": "mobilenetv2", "mobilenetv2": config},
        trainer={"epochs": 1, "schedule": "constant", "warmup_fraction": 0.0},
    )
    trained = []
    fit = training.fit

    def observed(model, *others, **options):
        before = model.get_weights()
        fit(model, *others, **options)
        changed = [np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)]
        trained.append({w.path for w, change in zip(model.weights, changed, strict=True) if change})

    monkeypatch.setattr(training, "fit", observed)
    model, history = train(settings, images, tmp_path)
    head = {"logits/kernel", "logits/bias"}
    assert trained[0] == head
    assert trained[1] in (set(), head | {"block_2/kernel", "block_2/bias"})  # nothing if it got no better
    assert [(epoch.phase, epoch.learning_rate) for epoch in history.epochs] == [
        ("training", pytest.approx(0.01)),
        ("fine-tuning", pytest.approx(0.005)),
        ("fine-tuning", pytest.approx(0.005)),
    ]
    assert val_loss(model, images[1]) == pytest.approx(min(e.val_loss for e in history.epochs), rel=1e-4)


def test_fine_tuning_that_only_harms_leaves_the_head_as_it_was(small_backbone, tmp_path, monkeypatch):
    images = samples.colored(24, 32, seed=0), samples.colored(12, 32, seed=1)
    config = {"weights": small_backbone, "fine_tune_epochs": 1, "fine_tune_from": "block_1"}
    settings = samples.small_settings(
        model={"architecture": "mobilenetv2", "mobilenetv2": config}, trainer={"epochs": 1}
    )
    kept = []
    offer = training.BestWeights.offer

    def offered(self, model, loss):
        kept.append(model.get_weights())
        return offer(self, model, loss + len(kept) * 100)

    monkeypatch.setattr(training.BestWeights, "offer", offered)
    model, _ = train(settings, images, tmp_path)
    assert len(kept) == 2
    for restored, of_head in zip(model.get_weights(), kept[0], strict=True):
        np.testing.assert_array_equal(restored, of_head)


def test_random_mobilenetv2_is_trained_whole_in_one_phase():
    settings = samples.small_settings(
        model={"architecture": "mobilenetv2", "mobilenetv2": {"alpha": 0.35, "weights": "random"}}
    )
    assert len(training.phases(settings)) == 1
    assert len(training.build(settings, samples.colored(3, 32), 3).trainable_variables) > 100
