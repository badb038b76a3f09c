import logging

import keras
import keras_tuner
import numpy as np
import pytest

from models import trainer, tuner
from models.training import loop, optimizers
from models.training.history import Epoch
from models.training.run import TrainingDivergedError
from settings.training import LearningRateRange, TrainerConfig, TunerConfig
from tests.models import samples


@pytest.fixture(scope="module")
def images():
    return samples.colored(48, 8, seed=0), samples.colored(24, 8, seed=1)


def create(settings, images, directory):
    return tuner.create(settings, *images, len(samples.CLASS_NAMES), str(directory))


def test_trials_are_spread_over_learning_rates_and_batch_sizes():
    config = TunerConfig(trials=6, batch_sizes=(32, 64, 128))
    points = tuner.spread(config, seed=0)
    edges = np.geomspace(config.learning_rate.min, config.learning_rate.max, 7)
    rates = sorted(point["learning_rate"] for point in points)
    assert all(low <= rate <= high for low, rate, high in zip(edges, rates, edges[1:], strict=False))
    assert sorted(point["batch_size"] for point in points) == [32, 32, 64, 64, 128, 128]
    assert points == tuner.spread(config, seed=0)
    assert points != tuner.spread(config, seed=1)


def test_points_with_a_single_batch_size_are_unique():
    points = tuner.spread(TunerConfig(trials=40, batch_sizes=(64,)), seed=0)
    assert {point["batch_size"] for point in points} == {64}
    assert len({point["learning_rate"] for point in points}) == 40


def test_each_trial_trains_with_its_batch_size_and_learning_rate(images, tmp_path, monkeypatch, caplog):
    trained_batch_sizes = []
    training_batches = loop.training_batches

    def recording_batches(train_images, batch_sizes, *others):
        trained_batch_sizes.append(batch_sizes[0])
        return training_batches(train_images, batch_sizes, *others)

    peak_rates = []
    create_optimizer = optimizers.create

    def recording_create(config, model, schedule):
        peak_rates.append(schedule.peak)
        return create_optimizer(config, model, schedule)

    monkeypatch.setattr(loop, "training_batches", recording_batches)
    monkeypatch.setattr(optimizers, "create", recording_create)
    caplog.set_level(logging.INFO, "models.tuner")
    search = create(samples.small_settings(), images, tmp_path)
    search.search(verbose=0)
    trials = list(search.oracle.trials.values())
    assert trained_batch_sizes == [trial.hyperparameters.values["batch_size"] for trial in trials]
    assert peak_rates == [trial.hyperparameters.values["learning_rate"] for trial in trials]
    assert sorted(trained_batch_sizes) == [8, 16]
    best = max(trials, key=lambda trial: trial.score)
    # TFX passes these values to the Trainer.
    assert search.get_best_hyperparameters()[0].get_config()["values"] == best.hyperparameters.values
    assert [message.split(":")[0] for message in caplog.messages] == ["trial 1/2", "trial 2/2"]
    assert (tmp_path / "tuner").is_dir()


def fail_at_high_rates(monkeypatch, limit):
    """Replaces training by one that diverges if the peak learning rate is over the limit."""

    def fit(model, train_images, val_images, phase, settings, *, run):
        if phase.learning_rate > limit:
            raise TrainingDivergedError("loss is nan")
        run.history.epochs.append(Epoch("trial", 1, 1.0, 0.5, 1.0, 0.25, 0.1, 1.0, 1.0, 0.0))

    monkeypatch.setattr(loop, "fit", fit)
    tiny_model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    monkeypatch.setattr(loop, "build", lambda *_: tiny_model)


def test_a_diverging_trial_does_not_end_the_search_and_is_not_the_best(images, tmp_path, monkeypatch):
    fail_at_high_rates(monkeypatch, limit=4e-3)
    search = create(samples.small_settings(tuner={"trials": 5}), images, tmp_path)
    search.search(verbose=0)
    statuses = [trial.status for trial in search.oracle.trials.values()]
    assert (len(statuses), set(statuses)) == (5, {"COMPLETED", "FAILED"})
    assert search.get_best_hyperparameters()[0].values["learning_rate"] <= 4e-3


def test_the_search_fails_if_all_trials_fail(images, tmp_path, monkeypatch):
    fail_at_high_rates(monkeypatch, limit=0.0)
    search = create(samples.small_settings(tuner={"trials": 4}), images, tmp_path)
    with pytest.raises(TrainingDivergedError, match=r"all 4 trials of the Tuner failed.*loss is nan"):
        search.search(verbose=0)


def test_any_other_error_ends_the_search_at_the_first_trial(images, tmp_path, monkeypatch):
    def fit(*_, **__):
        raise KeyError("a mistake")

    monkeypatch.setattr(loop, "fit", fit)
    search = create(samples.small_settings(), images, tmp_path)
    with pytest.raises(keras_tuner.errors.FatalError, match=r"a trial cannot be run.*a mistake"):
        search.search(verbose=0)
    assert len(search.oracle.trials) == 1


def test_tuner_fn_reads_the_fn_args(fn_args, tmp_path):
    result = tuner.tuner_fn(fn_args(samples.small_settings(tuner={"max_train_images": 20})))
    assert result.fit_kwargs == {"verbose": 0}
    assert result.tuner.oracle.objective.name == "val_accuracy"
    assert result.tuner.oracle.objective.direction == "max"
    assert len(result.tuner.hypermodel._train_images) == 20
    assert len(result.tuner.hypermodel._val_images) == 30
    assert result.tuner.project_dir.startswith(str(tmp_path / "working"))


@pytest.mark.parametrize(
    ("range_", "sizes", "tuned"),
    [
        ({"min": 0.01, "max": 0.01}, (8, 16), {"batch_size"}),
        ({"min": 0.001, "max": 0.01}, (8,), {"learning_rate"}),
    ],
)
def test_a_range_of_a_single_value_is_not_tuned(images, tmp_path, monkeypatch, range_, sizes, tuned):
    fail_at_high_rates(monkeypatch, limit=1.0)
    search = create(
        samples.small_settings(tuner={"trials": 2, "learning_rate": range_, "batch_sizes": sizes}),
        images,
        tmp_path,
    )
    search.search(verbose=0)
    best = search.get_best_hyperparameters()[0].get_config()
    config = TrainerConfig(learning_rate=0.01, batch_size=8)
    used = trainer.hyperparameters(config, best)
    assert {name for name, entry in used.items() if entry["source"] == "tuner"} == tuned
    assert {name: entry["value"] for name, entry in used.items()} == best["values"]


def test_points_are_unique_if_only_batch_sizes_are_searched():
    fixed = LearningRateRange(min=0.01, max=0.01)
    points = tuner.spread(TunerConfig(trials=6, batch_sizes=(8, 16), learning_rate=fixed), seed=0)
    assert sorted(point["batch_size"] for point in points) == [8, 16]
    assert {point["learning_rate"] for point in points} == {0.01}
