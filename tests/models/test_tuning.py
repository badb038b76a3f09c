import logging

import keras
import keras_tuner
import numpy as np
import pytest

from models import input, monitor, optimizers, training, tuning
from models.history import Epoch
from pipeline.config import TunerConfig
from tests.models import samples


@pytest.fixture(scope="module")
def images():
    return samples.colored(48, 8, seed=0), samples.colored(24, 8, seed=1)


def create(settings, images, directory):
    return tuning.create(settings, *images, len(samples.CLASS_NAMES), str(directory))


def test_trials_are_spread_over_learning_rates_and_batch_sizes():
    config = TunerConfig(trials=6, batch_sizes=(32, 64, 128))
    points = tuning.spread(config, seed=0)
    edges = np.geomspace(config.learning_rate.min, config.learning_rate.max, 7)
    rates = sorted(point["learning_rate"] for point in points)
    assert all(low <= rate <= high for low, rate, high in zip(edges, rates, edges[1:], strict=False))
    assert sorted(point["batch_size"] for point in points) == [32, 32, 64, 64, 128, 128]
    # No batch size sees only low or only high rates.
    for size in config.batch_sizes:
        low, high = sorted(p["learning_rate"] for p in points if p["batch_size"] == size)
        assert low < edges[3] < high
    assert points == tuning.spread(config, seed=0)
    assert points != tuning.spread(config, seed=1)


def test_one_batch_size_is_fixed_and_no_point_comes_twice():
    points = tuning.spread(TunerConfig(trials=40, batch_sizes=(64,)), seed=0)
    assert {point["batch_size"] for point in points} == {64}
    assert len({point["learning_rate"] for point in points}) == 40


def test_each_trial_trains_with_its_batch_size_and_learning_rate(images, tmp_path, monkeypatch, caplog):
    seen = []
    batches = input.training_batches

    def training_batches(train_images, batch_sizes, *others):
        seen.append(batch_sizes[0])
        return batches(train_images, batch_sizes, *others)

    rates = []
    create_optimizer = optimizers.create

    def observed(config, model, schedule):
        rates.append(schedule.peak)
        return create_optimizer(config, model, schedule)

    monkeypatch.setattr(input, "training_batches", training_batches)
    monkeypatch.setattr(optimizers, "create", observed)
    caplog.set_level(logging.INFO, "models.tuning")
    search = create(samples.small_settings(), images, tmp_path)
    search.search(verbose=0)
    trials = list(search.oracle.trials.values())
    assert seen == [trial.hyperparameters.values["batch_size"] for trial in trials]
    assert rates == [trial.hyperparameters.values["learning_rate"] for trial in trials]
    assert sorted(seen) == [8, 16]
    best = max(trials, key=lambda trial: trial.score)
    # What TFX hands to the Trainer.
    assert search.get_best_hyperparameters()[0].get_config()["values"] == best.hyperparameters.values
    assert [message.split(":")[0] for message in caplog.messages] == ["trial 1/2", "trial 2/2"]
    assert (tmp_path / "tuner").is_dir()


def fail_at_high_rates(monkeypatch, limit):
    def fit(model, train_images, val_images, phase, settings, *, run):
        if phase.learning_rate > limit:
            raise monitor.TrainingDivergedError("loss is nan")
        run.history.epochs.append(Epoch("trial", 1, 1.0, 0.5, 1.0, 0.25, 0.1, 1.0, 1.0, 0.0))

    monkeypatch.setattr(training, "fit", fit)
    nothing = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    monkeypatch.setattr(training, "build", lambda *_: nothing)


def test_a_diverging_trial_does_not_end_the_search_and_is_not_the_best(images, tmp_path, monkeypatch):
    fail_at_high_rates(monkeypatch, limit=4e-3)
    search = create(samples.small_settings(tuner={"trials": 5}), images, tmp_path)
    search.search(verbose=0)
    statuses = [trial.status for trial in search.oracle.trials.values()]
    assert (len(statuses), set(statuses)) == (5, {"COMPLETED", "FAILED"})
    assert search.get_best_hyperparameters()[0].values["learning_rate"] <= 4e-3


def test_if_all_trials_fail_the_search_does(images, tmp_path, monkeypatch):
    fail_at_high_rates(monkeypatch, limit=0.0)
    search = create(samples.small_settings(tuner={"trials": 4}), images, tmp_path)
    with pytest.raises(monitor.TrainingDivergedError, match=r"all 4 trials of the Tuner failed.*loss is nan"):
        search.search(verbose=0)


def test_any_other_error_ends_the_search_at_the_first_trial(images, tmp_path, monkeypatch):
    def fit(*_, **__):
        raise KeyError("a mistake")

    monkeypatch.setattr(training, "fit", fit)
    search = create(samples.small_settings(), images, tmp_path)
    with pytest.raises(keras_tuner.errors.FatalError, match=r"a trial cannot be run.*a mistake"):
        search.search(verbose=0)
    assert len(search.oracle.trials) == 1


def test_tuner_fn_reads_what_tfx_passes(fn_args, tmp_path):
    result = tuning.tuner_fn(fn_args(samples.small_settings(tuner={"max_train_images": 20})))
    assert result.fit_kwargs == {"verbose": 0}
    assert result.tuner.oracle.objective.name == "val_accuracy"
    assert result.tuner.oracle.objective.direction == "max"
    assert len(result.tuner.hypermodel._train_images) == 20
    assert len(result.tuner.hypermodel._val_images) == 30
    assert result.tuner.project_dir.startswith(str(tmp_path / "working"))
