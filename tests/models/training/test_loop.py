import collections
import json
import logging
import os
import re
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.data.images import Images
from models.networks import pretrained, weights
from models.networks.layers import normalization
from models.training import checkpoint, distribution, loop, losses, progress, schedules
from models.training.run import BestWeights, TrainingDivergedError
from settings.base import ConfigError
from tests.models import samples
from tests.models.conftest import KilledError


@pytest.fixture(scope="module")
def images():
    return samples.colored(60, 8, seed=0), samples.colored(30, 8, seed=1)


def train(settings, images, directory, **options):
    return loop.train(settings, *images, len(samples.CLASS_NAMES), str(directory), **options)


def val_loss(model, images, smoothing=0.0):
    pixels = images.pixels.astype(np.float32) / np.float32(255)
    return float(
        np.mean(losses.CrossEntropy(smoothing).call(images.labels, model.predict(pixels, verbose=0)))
    )


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    settings = samples.small_settings(trainer={"epochs": 4, "label_smoothing": 0.1})
    return settings, directory, *train(settings, images, directory)


def test_a_network_learns(trained):
    assert trained[3].best.val_accuracy > 0.9


def test_batch_normalization_momentum_follows_the_steps_per_epoch(images, tmp_path):
    settings = samples.small_settings(trainer={"epochs": 1, "batch_size": 3})  # 20 steps
    model, _ = train(settings, images, tmp_path)
    layers = [x for x in model.layers if isinstance(x, normalization.BatchNormalization)]
    assert [layer.momentum for layer in layers] == pytest.approx([0.8] * len(layers))
    assert layers


def test_the_history_is_complete_and_on_disk(trained):
    settings, directory, _, history = trained
    content = json.loads((directory / "history.json").read_text())
    assert [epoch["epoch"] for epoch in content["epochs"]] == [1, 2, 3, 4]
    assert content["epochs"][content["best"]]["val_loss"] == history.best.val_loss
    fields = {"phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"}
    assert set(content["epochs"][0]) == fields | {
        "learning_rate",
        "seconds",
        "images_per_second",
        "data_wait",
    }
    # 60 images in batches of 16 are 4 steps an epoch; the last epoch's last step is step 15 of 16.
    schedule = schedules.Schedule("cosine", settings.trainer.learning_rate, 16, round(0.05 * 16))
    for number, epoch in enumerate(content["epochs"], start=1):
        assert epoch["learning_rate"] == pytest.approx(float(schedule(4 * number - 1)))
        assert 0 <= epoch["data_wait"] <= 1
    assert list(directory.glob("tensorboard/training/*/events*"))
    assert not list(directory.glob(".history*"))


def test_the_tensorboard_command_finds_the_curves(trained):
    _, directory, _, _ = trained
    command = [sys.executable, "-m", "tensorboard.main", "--inspect", "--logdir", str(directory)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "epoch_accuracy" in process.stdout
    assert "num_steps            4" in process.stdout


def test_the_model_has_the_weights_of_the_best_epoch(trained, images):
    _, _, model, history = trained
    assert val_loss(model, images[1], smoothing=0.1) == pytest.approx(history.best.val_loss, rel=1e-4)


def test_later_epochs_with_higher_loss_leave_the_best_weights_unchanged(images, monkeypatch, tmp_path):
    copies = []
    offer = BestWeights.offer

    def offer_with_given_loss(self, _):
        copies.append(self.model.get_weights())
        return offer(self, val_losses[len(copies) - 1])

    monkeypatch.setattr(BestWeights, "offer", offer_with_given_loss)
    val_losses = [3.0, 1.0, 2.0, 1.5]
    model, _ = train(samples.small_settings(trainer={"epochs": 4}), images, tmp_path)
    for weight, expected in zip(model.get_weights(), copies[1], strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert any(np.any(a != b) for a, b in zip(copies[1], copies[3], strict=True))


def test_training_stops_early_and_logs_it(images, tmp_path, caplog):
    # The validation labels contradict those of training, so the validation loss can only rise.
    wrong = Images(images[1].pixels, (images[1].labels + 1) % 3)
    settings = samples.small_settings(
        trainer={"epochs": 12, "early_stopping_patience": 2, "schedule": "constant", "learning_rate": 0.03}
    )
    caplog.set_level(logging.INFO, "models")
    model, history = train(settings, (images[0], wrong), tmp_path)
    assert len(history.epochs) == history.best.epoch + 2 < 12
    assert len(json.loads((tmp_path / "history.json").read_text())["epochs"]) == len(history.epochs)
    assert val_loss(model, wrong) == pytest.approx(history.best.val_loss, rel=1e-4)
    assert "stopped early" in caplog.text


def test_images_that_are_too_small_are_refused_before_training(images):
    settings = samples.small_settings(trainer={"crop_scales": (0.5, 1.0)})
    with pytest.raises(
        ConfigError, match=r"crop_scales: scale 0\.5 crops images of 8 pixels to 4, .*least 5"
    ):
        loop.build(settings, images[0], 3)


@pytest.mark.parametrize(("schedule", "stopped_after"), [("constant", 3), ("linear", 8), ("cosine", 8)])
def test_early_stopping_counts_only_after_the_rate_has_fallen_to_half(
    images, tmp_path, monkeypatch, schedule, stopped_after
):
    # The validation loss never falls. The rate reaches half of its peak in epoch 6 of 12.
    monkeypatch.setattr(distribution.Network, "test_step", lambda *_: {"loss": 1.0, "accuracy": 0.5})
    settings = samples.small_settings(
        trainer={
            "epochs": 12,
            "early_stopping_patience": 2,
            "schedule": schedule,
            "warmup_fraction": 0.0,
        }
    )
    _, history = train(settings, images, tmp_path)
    assert len(history.epochs) == stopped_after


def test_balanced_class_weights_raise_the_recall_of_a_rare_class(tmp_path):
    def grey(counts, seed):
        # The brightness of the two classes overlaps; without weights, the frequent class wins.
        labels = np.repeat([0, 1], counts)
        generator = np.random.default_rng(seed)
        brightness = np.clip(generator.normal(np.where(labels, 140, 110), 20), 0, 255).astype(np.uint8)
        return Images(np.tile(brightness[:, None, None, None], (1, 8, 8, 3)), labels)

    train_images, val_images = grey([380, 20], 0), grey([200, 200], 1)
    recall = {}
    for class_weights in ("none", "balanced"):
        settings = samples.small_settings(trainer={"epochs": 6, "class_weights": class_weights})
        model, _ = loop.train(settings, train_images, grey([95, 5], 2), 2, str(tmp_path))
        logits = model.predict(val_images.pixels / np.float32(255), verbose=0)
        recall[class_weights] = [np.mean(logits.argmax(axis=1)[val_images.labels == c] == c) for c in (0, 1)]
    assert recall["none"][1] < 0.4
    assert min(recall["balanced"]) > 0.6


def test_progress_is_logged_within_an_epoch(images, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_MESSAGES", 0.0)
    caplog.set_level(logging.INFO, "models")
    train(samples.small_settings(trainer={"epochs": 1}), images, tmp_path)
    assert re.search(
        r"training: epoch 1/1, step 2/4, loss [\d.]+, accuracy [\d.]+, learning rate 0\.\d+, \d+ images/s, "
        "at most",
        caplog.text,
    )
    assert re.search(r"epoch 1/1 in .*, \d+\.\d% of the time waiting for data", caplog.text)
    assert caplog.messages[-1].startswith("training: epoch 1/1 in ")


def test_divergence_raises_an_error_within_the_epoch(images, tmp_path):
    settings = samples.small_settings(
        model={"cnn": {"filters": (4,), "batch_normalization": False}}, trainer={"learning_rate": 1e30}
    )
    with pytest.raises(
        TrainingDivergedError,
        match=r"training diverged: loss is (nan|inf) in epoch 1, step [12], .*rate of 1e\+30",
    ):
        train(settings, images, tmp_path)


def test_the_same_seed_gives_the_same_model(images, tmp_path):
    settings = samples.small_settings(trainer={"epochs": 1}, augmentation={"shift_fraction": 0.1})
    first, second = (train(settings, images, tmp_path)[0].get_weights() for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_mixed_precision_trains_in_bfloat16_and_returns_a_model_in_float32(images, tmp_path, monkeypatch):
    training_dtypes = set()
    fit = loop.fit

    def recording_fit(model, *others, **options):
        training_dtypes.update(layer.compute_dtype for layer in model.layers if "conv" in layer.name)
        fit(model, *others, **options)

    monkeypatch.setattr(loop, "fit", recording_fit)
    settings = samples.small_settings(trainer={"epochs": 2, "precision": "mixed_bfloat16"})
    model, history = train(settings, images, tmp_path)
    assert training_dtypes == {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    # The weights are those of the best epoch, within the precision of bfloat16: about three digits.
    assert val_loss(model, images[1]) == pytest.approx(history.best.val_loss, rel=0.05)


def test_an_empty_split_and_invalid_labels_are_refused(images, tmp_path):
    empty = Images(np.empty((0, 8, 8, 3), np.uint8), np.empty(0, np.int64))
    with pytest.raises(ValueError, match="val split is empty"):
        train(samples.small_settings(), (images[0], empty), tmp_path)
    with pytest.raises(ValueError, match="train split has labels from 0 to 2, expected 0 to 1"):
        loop.train(samples.small_settings(), *images, 2, str(tmp_path))


def read_curves(directory):
    """Reads the TensorBoard logs: the value at each step, for each curve."""
    curves = collections.defaultdict(dict)
    for file in (directory / "tensorboard").rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                curve = f"{file.parent.relative_to(directory / 'tensorboard')}/{value.tag}"
                curves[curve][event.step] = float(tf.make_ndarray(value.tensor))
    return curves


def train_until_killed(settings, images, directory, checkpoints, monkeypatch, saves):
    """Trains, and simulates a kill once `saves` checkpoints have been written."""
    saved = []
    save = checkpoint.Checkpoint.save

    def save_until_killed(self, state):
        save(self, state)
        saved.append(state)
        if len(saved) == saves:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Checkpoint, "save", save_until_killed)
        with pytest.raises(KilledError):
            train(settings, images, directory, checkpoints=checkpoints)


def check_same_result(resumed, uninterrupted):
    """Asserts that two trainings, each a model and its history, have the same epochs and weights."""
    (model, history), (expected_model, expected_history) = resumed, uninterrupted
    for expected, epoch in zip(expected_history.epochs, history.epochs, strict=True):
        assert (epoch.phase, epoch.epoch) == (expected.phase, expected.epoch)
        assert epoch.loss == pytest.approx(expected.loss, rel=1e-5)
        assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-5)
        assert epoch.learning_rate == expected.learning_rate
    for weight, expected_weight in zip(model.get_weights(), expected_model.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected_weight, atol=1e-5)


@pytest.mark.parametrize(
    ("epochs_before", "filters", "changed"),
    [
        (1, {}, {}),
        (3, {}, {}),
        (4, {}, {}),
        # The options of configs/cnn.yaml.
        (2, {"mirrored_filters": True}, {"optimizer": "muon", "precision": "mixed_bfloat16"}),
    ],
)
def test_a_killed_training_resumes_with_the_same_result(
    images, tmp_path, monkeypatch, caplog, epochs_before, filters, changed
):
    settings = samples.small_settings(
        model={"cnn": {"filters": (8, 8), "dropout": 0.5, **filters}},
        augmentation={"shift_fraction": 0.2, "flip": True},
        trainer={"epochs": 4, "crop_scales": (0.75, 1.0), **changed},
    )
    uninterrupted = train(settings, images, tmp_path / "uninterrupted")
    checkpoints = checkpoint.Checkpoint(str(tmp_path / "checkpoints"), {})
    train_until_killed(settings, images, tmp_path / "killed", checkpoints, monkeypatch, epochs_before)
    caplog.set_level(logging.INFO, "models")
    model, history = train(settings, images, tmp_path / "resumed", checkpoints=checkpoints)
    assert f"training: resumes after epoch {epochs_before}" in caplog.messages
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3, 4]
    check_same_result((model, history), uninterrupted)
    curves = read_curves(tmp_path / "resumed")
    assert {curve: list(points) for curve, points in curves.items()} == {
        f"training/{split}/epoch_{name}": [1, 2, 3, 4]
        for split, names in {
            "train": ("loss", "accuracy", "learning_rate", "images_per_second", "data_wait"),
            "validation": ("loss", "accuracy"),
        }.items()
        for name in names
    }
    assert curves["training/validation/epoch_loss"] == pytest.approx(
        {epoch.epoch: epoch.val_loss for epoch in history.epochs}
    )
    checkpoints.remove()
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_checkpoint_of_another_network_raises_a_clear_error(images, tmp_path):
    checkpoints = checkpoint.Checkpoint(str(tmp_path / "checkpoints"), {})
    train(samples.small_settings(trainer={"epochs": 1}), images, tmp_path, checkpoints=checkpoints)
    other = samples.small_settings(model={"cnn": {"filters": (8, 4)}}, trainer={"epochs": 1})
    expected = r"checkpoints/\w+\.npz, which has a network of another shape.*Delete this file"
    with pytest.raises(checkpoint.CheckpointError, match=expected):
        train(other, images, tmp_path, checkpoints=checkpoints)


def test_a_resumed_training_that_had_stopped_early_stays_stopped(images, tmp_path):
    wrong = Images(images[1].pixels, (images[1].labels + 1) % 3)
    settings = samples.small_settings(
        trainer={"epochs": 12, "early_stopping_patience": 1, "schedule": "constant", "learning_rate": 0.03}
    )
    checkpoints = checkpoint.Checkpoint(str(tmp_path / "checkpoints"), {})
    model, history = train(settings, (images[0], wrong), tmp_path, checkpoints=checkpoints)
    resumed_model, resumed_history = train(settings, (images[0], wrong), tmp_path, checkpoints=checkpoints)
    assert len(history.epochs) < 12
    assert resumed_history.epochs == history.epochs
    for weight, expected in zip(resumed_model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


TRAINING = """
import hashlib, logging, sys
import numpy as np
from models.training import checkpoint, loop

sys.path.insert(0, "tests/models")
import samples

logging.basicConfig(level=logging.INFO)
images = samples.colored(600, 16, seed=0), samples.colored(30, 16, seed=1)
settings = samples.small_settings(
    augmentation={
        "shift_fraction": 0.1, "flip": True, "rotation_degrees": 5.0, "cutout_fraction": 0.3,
        "brightness": 0.2, "blur_fraction": 0.05, "noise": 0.1, "jpeg": 0.9,
    },
    model={
        "cnn": {"filters": (16, 16), "convolutions_per_block": 3, "mirrored_filters": True, "dropout": 0.2}
    },
    trainer={
        "epochs": int(sys.argv[1]), "batch_size": 8, "deterministic": True, "optimizer": "muon",
        "precision": "mixed_bfloat16", "crop_scales": (0.75, 1.0),
    },
)
model, history = loop.train(
    settings, *images, 3, None if sys.argv[3] == "none" else sys.argv[3],
    checkpoints=checkpoint.Checkpoint(sys.argv[2], {}) if sys.argv[3] != "none" else None,
)
digest = hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights()))
print("weights", digest.hexdigest(), [epoch.epoch for epoch in history.epochs])
"""


@pytest.mark.slow
def test_deterministic_weights_are_bit_identical_also_after_a_kill(tmp_path):
    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-c", TRAINING, "6", str(tmp_path / "checkpoints"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def weights(process):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-3000:]
        (line,) = (line for line in output.splitlines() if line.startswith("weights"))
        return line, output

    first, second = start("none"), start("none")
    killed = start(str(tmp_path / "killed"))
    for line in killed.stdout:
        if "training: epoch 2/6 in" in line:
            break
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    expected, _ = weights(first)
    assert weights(second)[0] == expected
    resumed, output = weights(start(str(tmp_path / "resumed")))
    assert "resumes after epoch" in output
    assert resumed == expected


@pytest.fixture
def small_backbone(monkeypatch, tmp_path):
    """Replaces MobileNetV2, whose two phases take half a minute; returns the path of its weights."""

    def build_backbone(input_shape, **_):
        inputs = x = keras.Input(input_shape)
        for block in (1, 2):
            x = keras.layers.Conv2D(4, 3, strides=4, name=f"block_{block}_project")(x)
            x = keras.layers.BatchNormalization(name=f"block_{block}_project_BN")(x)
        return keras.Model(inputs, x)

    monkeypatch.setattr(keras.applications, "MobileNetV2", build_backbone)
    monkeypatch.setattr(weights, "check", lambda *_: None)
    monkeypatch.setattr(pretrained, "_load", lambda *_: None)
    path = tmp_path / "weights.h5"
    path.touch()
    return str(path)


def two_phases(weights_path, trainer, **config):
    """Returns settings that train a head on the small backbone and then fine-tune its second block."""
    return samples.small_settings(
        model={
            "architecture": "mobilenetv2",
            "mobilenetv2": {
                "weights": weights_path,
                "feature_layers": ["block_2_project_BN"],
                "fine_tune_epochs": 2,
                "fine_tune_from": "block_2_project",
                "fine_tune_rate": 0.5,
                **config,
            },
        },
        augmentation={"shift_fraction": 0.1, "flip": True},
        trainer=trainer,
    )


@pytest.fixture(scope="module")
def larger_images():
    return samples.colored(24, 32, seed=0), samples.colored(12, 32, seed=1)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_mobilenetv2_trains_its_head_then_fine_tunes_and_returns_the_best_weights(
    small_backbone, larger_images, tmp_path, monkeypatch, precision
):
    settings = two_phases(
        small_backbone,
        {"epochs": 1, "schedule": "constant", "warmup_fraction": 0.0, "precision": precision},
    )
    snapshots = []  # the weights at the start of each phase and after each epoch
    fit, offer = loop.fit, BestWeights.offer

    def recording_fit(model, *others, **options):
        snapshots.append(model.get_weights())
        fit(model, *others, **options)

    def recording_offer(self, loss):
        snapshots.append(self.model.get_weights())
        return offer(self, loss)

    monkeypatch.setattr(loop, "fit", recording_fit)
    monkeypatch.setattr(BestWeights, "offer", recording_offer)
    model, history = train(settings, larger_images, tmp_path)
    initial, with_head, unfrozen, _, fine_tuned = snapshots

    def changed(before, after):
        pairs = zip(model.weights, before, after, strict=True)
        return {weight.path for weight, a, b in pairs if np.any(a != b)}

    head = {"logits/kernel", "logits/bias"}
    assert changed(initial, with_head) == head
    assert not changed(with_head, unfrozen)
    assert changed(unfrozen, fine_tuned) == {*head, "block_2_project/kernel", "block_2_project/bias"}
    assert [(epoch.phase, epoch.learning_rate) for epoch in history.epochs] == [
        ("training", pytest.approx(0.01)),
        ("fine-tuning", pytest.approx(0.005)),
        ("fine-tuning", pytest.approx(0.005)),
    ]
    lowest = min(epoch.val_loss for epoch in history.epochs)
    assert val_loss(model, larger_images[1]) == pytest.approx(
        lowest, rel=1e-4 if precision == "float32" else 0.02
    )


def test_each_phase_stops_early_by_its_own_patience(small_backbone, larger_images, tmp_path, monkeypatch):
    # The validation loss never falls.
    monkeypatch.setattr(distribution.Network, "test_step", lambda *_: {"loss": 1.0, "accuracy": 0.5})
    settings = two_phases(
        small_backbone,
        {"epochs": 8, "early_stopping_patience": 2, "schedule": "constant"},
        fine_tune_epochs=6,
    )
    _, history = train(settings, larger_images, tmp_path)
    assert [(epoch.phase, epoch.epoch) for epoch in history.epochs] == [
        *(("training", number) for number in (1, 2, 3)),
        *(("fine-tuning", number) for number in (1, 2, 3)),
    ]


@pytest.mark.parametrize("saved_before", [1, 2, 3, 4])
def test_a_training_of_two_phases_resumes_in_the_phase_in_which_it_was_killed(
    small_backbone, larger_images, tmp_path, monkeypatch, saved_before
):
    settings = two_phases(small_backbone, {"epochs": 2}, feature_views=2)
    uninterrupted = train(settings, larger_images, tmp_path / "uninterrupted")
    checkpoints = checkpoint.Checkpoint(str(tmp_path / "checkpoints"), {})
    train_until_killed(settings, larger_images, tmp_path / "killed", checkpoints, monkeypatch, saved_before)
    model, history = train(settings, larger_images, tmp_path / "resumed", checkpoints=checkpoints)
    assert [(epoch.phase, epoch.epoch) for epoch in history.epochs] == [
        ("training", 1),
        ("training", 2),
        ("fine-tuning", 1),
        ("fine-tuning", 2),
    ]
    check_same_result((model, history), uninterrupted)


def test_fine_tuning_that_raises_the_loss_leaves_the_weights_unchanged(
    small_backbone, larger_images, tmp_path, monkeypatch
):
    settings = two_phases(small_backbone, {"epochs": 1}, fine_tune_epochs=1, fine_tune_from="block_1_project")
    snapshots = []
    offer = BestWeights.offer

    def offer_with_rising_loss(self, loss):
        snapshots.append(self.model.get_weights())
        return offer(self, loss + len(snapshots) * 100)

    monkeypatch.setattr(BestWeights, "offer", offer_with_rising_loss)
    model, _ = train(settings, larger_images, tmp_path)
    assert len(snapshots) == 2
    for restored, expected in zip(model.get_weights(), snapshots[0], strict=True):
        np.testing.assert_array_equal(restored, expected)


def test_mobilenetv2_with_random_weights_trains_all_layers_in_one_phase():
    settings = samples.small_settings(
        model={"architecture": "mobilenetv2", "mobilenetv2": {"alpha": 0.35, "weights": "random"}}
    )
    assert len(loop.phases(settings)) == 1
    assert len(loop.build(settings, samples.colored(3, 32), 3).trainable_variables) > 100
