import json
import logging
import re
import shutil
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras_tuner.engine.trial import Trial, TrialStatus

from models import trainer, tuner
from models.search import oracles, plan, results, space, trials
from models.training import loop, optimizers
from models.training.checkpoint import CheckpointError
from models.training.history import Epoch
from models.training.run import TrainingDivergedError
from settings import search as spaces
from settings.base import ConfigError
from settings.training import TunerConfig
from tests.models import samples
from tests.models.conftest import KilledError

RATE, SIZE, DROPOUT = "trainer.learning_rate", "trainer.batch_size", "model.cnn.dropout"
ALGORITHMS = ("space_filling", "random", "bayesian", "hyperband")
MIXED = {
    RATE: {"min": 1e-3, "max": 1e-1, "log": True},
    SIZE: [8, 16],
    DROPOUT: {"min": 0, "max": 0.5},
    "model.cnn.filters": [[8, 8], [4, 4, 4]],
    "augmentation.flip": [True, False],
    "trainer.optimizer": ["adam", "adamw"],
    "trainer.weight_decay": [None, 0.1],
}


@pytest.fixture(scope="module")
def images():
    return samples.colored(48, 8, seed=0), samples.colored(24, 8, seed=1)


def create(settings, images, directory):
    return tuner.create(settings, *images, len(samples.CLASS_NAMES), str(directory))


def searching(**config):
    """Returns settings of a search; without `space`, that of the small settings."""
    return samples.small_settings(tuner=config)


def points(search):
    return [row_values(row) for row in search.oracle.rows()]


def row_values(row):
    return {key: value for key, value in row.items() if key not in results.COLUMNS}


@pytest.fixture
def trained(monkeypatch):
    """Replaces training by a function of the settings; returns a dict that tests may change.

    `accuracy` computes the validation accuracy of an epoch from the settings, its number and the number of
    epochs; `settings` are those of all trials so far.
    """
    control = {
        "accuracy": lambda settings, epoch, epochs: (
            0.5 + settings.model.cnn.dropout - 0.01 * (epochs - epoch)
        ),
        "settings": [],
    }

    def fit(model, train_images, val_images, phase, settings, *, run, callbacks=()):
        control["settings"].append(settings)
        for number in range(1, phase.epochs + 1):
            accuracy = control["accuracy"](settings, number, phase.epochs)
            run.record([Epoch("trial", number, 1.0, 0.5, 1.0 - accuracy, accuracy, 0.1, 1.0, 1.0, 0.0)])

    monkeypatch.setattr(loop, "fit", fit)
    monkeypatch.setattr(loop, "build", lambda *_: TINY)
    # Without networks there is nothing to free, and collecting takes most of a trial's time.
    monkeypatch.setattr(trials, "_free_memory", lambda: None)
    return control


TINY = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def run(settings, images, directory):
    search = create(settings, images, directory)
    search.search(verbose=0)
    return search


def test_trials_are_spread_over_learning_rates_and_batch_sizes(images, tmp_path, trained):
    config = {"trials": 6, "space": {**spaces.DEFAULT, SIZE: [32, 64, 128]}}
    found = points(run(searching(**config), images, tmp_path / "a"))
    edges = np.geomspace(1e-3, 1e-2, 7)
    rates = sorted(point[RATE] for point in found)
    assert all(low <= rate <= high for low, rate, high in zip(edges, rates, edges[1:], strict=False))
    assert sorted(point[SIZE] for point in found) == [32, 32, 64, 64, 128, 128]
    assert found == points(run(searching(**config), images, tmp_path / "b"))
    other = searching(**config).model_copy(update={"seed": 5})
    assert found != points(run(other, images, tmp_path / "c"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_tries_only_what_the_settings_accept_and_each_point_once(
    images, tmp_path, trained, algorithm
):
    search = run(searching(trials=13, epochs=9, algorithm=algorithm, space=MIXED), images, tmp_path)
    rows = search.oracle.rows()
    assert len(rows) == 13
    assert all(row["trainer.optimizer"] == "adamw" or row["trainer.weight_decay"] is None for row in rows)
    if algorithm != "hyperband":
        assert len({json.dumps(row_values(row)) for row in rows}) == 13
    # The values have reached the training as the settings' own types.
    assert [settings.model.cnn.filters for settings in trained["settings"]] == [
        tuple(row["model.cnn.filters"]) for row in rows
    ]
    assert {type(settings.augmentation.flip) for settings in trained["settings"]} == {bool}
    # The Trainer reads the best point from what TFX passes on, as JSON.
    best = json.loads(json.dumps(search.get_best_hyperparameters()[0].get_config()))
    used = trainer.hyperparameters(samples.small_settings(), best)
    winner = rows[search.describe()["best"] - 1]
    assert {key: entry["value"] for key, entry in used.items()} == row_values(winner)
    assert {entry["source"] for entry in used.values()} == {"tuner"}


def test_networks_that_are_too_deep_for_the_images_are_not_tried(images, tmp_path, trained):
    filters = {"model.cnn.filters": [[8] * depth for depth in range(1, 7)]}
    search = run(searching(trials=20, space=filters), images, tmp_path)
    # Each block halves the 8 pixels, and the whitening takes one more.
    assert sorted(len(point["model.cnn.filters"]) for point in points(search)) == [1, 2]
    # What is announced and shown as progress are the trials that there are.
    assert len(search.oracle.plan) == 2


def test_bayesian_search_comes_closer_to_the_best_point_than_random_search(images, tmp_path, trained):
    trained["accuracy"] = lambda settings, *_: (
        0.9
        - abs(settings.model.cnn.dropout - 0.31)
        - 0.2 * abs(np.log10(settings.trainer.learning_rate / 0.02))
    )
    shape = {key: MIXED[key] for key in (RATE, DROPOUT)}
    scores = {
        algorithm: run(
            searching(trials=16, algorithm=algorithm, space=shape), images, tmp_path / algorithm
        ).describe()["best_score"]
        for algorithm in ("bayesian", "random")
    }
    assert scores["bayesian"] > 0.85
    assert scores["bayesian"] > scores["random"]


def test_bayesian_search_leaves_the_first_points_if_all_are_far_from_the_best(images, tmp_path):
    shape = {RATE: {"min": 4.67e-3, "max": 4.2, "log": True}, SIZE: [250, 500, 1000, 2000]}
    oracle = create(searching(trials=12, algorithm="bayesian", space=shape), images, tmp_path).oracle
    # Measured with the network of quick.yaml on 8,000 images of CIFAR-10.
    tried = {(0.0069, 250): 0.3236, (2.1, 250): 0.3494, (3.715, 500): 0.1970, (0.0096, 2000): 0.1846}
    for (rate, size), score in tried.items():
        values = oracle.get_space()
        values.values.update({RATE: rate, SIZE: size})
        trial = Trial(values, trial_id=str(score), status=TrialStatus.COMPLETED)
        trial.score = score
        oracle.trials[trial.trial_id] = trial
    proposed = oracle.populate_space("next")["values"]
    assert all(size != proposed[SIZE] or abs(np.log10(proposed[RATE] / rate)) > 0.3 for rate, size in tried)


def test_bayesian_search_avoids_where_trials_fail(images, tmp_path, trained):
    def accuracy(settings, *_):
        if settings.model.cnn.dropout > 0.25:
            raise TrainingDivergedError("loss is nan")
        return 0.5 + settings.model.cnn.dropout

    trained["accuracy"] = accuracy
    search = run(
        searching(trials=14, algorithm="bayesian", space={DROPOUT: MIXED[DROPOUT]}), images, tmp_path
    )
    later = search.oracle.rows()[6:]
    assert sum(row["state"] == "failed" for row in later) <= len(later) / 2
    assert search.describe()["best_score"] > 0.74


def test_hyperband_trains_the_best_third_for_longer_and_survives_failures(images, tmp_path, trained):
    config = TunerConfig(algorithm="hyperband", epochs=9, trials=9)
    assert plan.epochs_of_trials(config, 100)[:5] == [1] * 5
    failing = []

    def accuracy(settings, epoch, epochs):
        if len(failing) < 1:
            failing.append(settings)
            raise TrainingDivergedError("loss is nan")
        return 0.5 + settings.model.cnn.dropout + 0.01 * epochs

    trained["accuracy"] = accuracy
    search = run(
        searching(trials=16, epochs=9, algorithm="hyperband", space={DROPOUT: MIXED[DROPOUT]}),
        images,
        tmp_path,
    )
    assert [record["epochs"] for record in search.oracle.records.values()] == search.oracle.plan
    rows = search.oracle.rows()
    first = search.oracle.plan.count(1)
    promoted = [row[DROPOUT] for row in rows[first : first + search.oracle.plan.count(3)]]
    best = sorted((row[DROPOUT] for row in rows[:first] if row["score"] is not None), reverse=True)
    assert promoted[:3] == best[:3]
    assert rows[0]["state"] == "failed"
    # A trial of fewer epochs cannot win.
    assert rows[search.describe()["best"] - 1]["epochs"] == 9


def test_pruning_stops_trials_that_are_behind_the_median(images, tmp_path, trained):
    config = {"trials": 8, "epochs": 4, "space": {DROPOUT: {"min": 0, "max": 0.5}}}
    whole = run(searching(**config), images, tmp_path / "whole")
    pruned = run(searching(**config, prune=True), images, tmp_path / "pruned")
    assert points(whole) == points(pruned)
    rows = pruned.oracle.rows()
    for number, row in enumerate(rows):
        earlier = [other[DROPOUT] for other in rows[:number]]
        behind = len(earlier) >= 3 and row[DROPOUT] < np.median(earlier)
        assert (row["state"], row["epochs"]) == (("pruned", 1) if behind else ("complete", 4))
    assert any(row["state"] == "pruned" for row in rows)
    assert pruned.describe()["best"] == whole.describe()["best"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_that_is_killed_at_any_moment_goes_on_with_the_same_points(
    images, tmp_path, trained, monkeypatch, algorithm
):
    settings = searching(trials=9, epochs=3, algorithm=algorithm, prune=True, space=MIXED)
    whole = run(settings, images, tmp_path / "whole")
    folder, saves = tmp_path / "killed", [0]
    save = oracles.SearchOracle.save

    def dying_save(oracle):
        # Every third save is the last of its process: at the start of a trial, at its end, and after it.
        saves[0] += 1
        if saves[0] % 3 == 0:
            raise KilledError
        save(oracle)

    monkeypatch.setattr(oracles.SearchOracle, "save", dying_save)
    trainings_before = len(trained["settings"])
    for _ in range(30):
        try:
            search = run(settings, images, folder)
            break
        except KilledError:
            assert len(list(folder.iterdir())) == 1
    assert points(search) == points(whole)
    assert search.describe()["best"] == whole.describe()["best"]
    assert [row["score"] for row in search.oracle.rows()] == [row["score"] for row in whole.oracle.rows()]
    assert saves[0] > 9
    assert len(trained["settings"]) - trainings_before < 2 * 9 + saves[0] / 3


def test_a_search_does_not_go_on_with_the_state_of_another_one(images, tmp_path, trained):
    run(searching(), images, tmp_path)
    search = create(searching(epochs=2), images, tmp_path)
    assert not search.oracle.trials
    assert len(list(tmp_path.iterdir())) == 2
    search.remove_state()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", '{"trials": [{}]}'])
def test_a_damaged_state_is_named_with_what_to_do(images, tmp_path, trained, damaged):
    file = Path(run(searching(), images, tmp_path).oracle.state_file)
    file.write_text(damaged)
    with pytest.raises(CheckpointError, match=r"(?s)cannot resume the search from .*search.json, .*Delete"):
        create(searching(), images, tmp_path)


@pytest.mark.parametrize(
    ("budget", "trials"),
    [({}, 8), ({"epochs": 7}, 3), ({"images": 48 * 4}, 2), ({"epochs": 7, "images": 48 * 2}, 1)],
)
def test_the_budget_that_is_used_up_first_ends_the_search(images, tmp_path, trained, budget, trials):
    search = run(searching(trials=8, epochs=2, budget=budget, space=MIXED), images, tmp_path)
    rows = search.oracle.rows()
    assert len(rows) == trials
    assert sum(row["images"] for row in rows) == 48 * 2 * trials


def test_no_trial_begins_that_would_end_after_the_budget_of_minutes(images, tmp_path, trained, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(oracles.SearchOracle, "seconds", property(lambda oracle: seconds[0]))
    accuracy = trained["accuracy"]

    def slow(*arguments):
        seconds[0] += 20
        return accuracy(*arguments)

    trained["accuracy"] = slow
    monkeypatch.setattr(oracles.SearchOracle, "_seconds_per_epoch", lambda oracle: 20 if seconds[0] else None)
    config = {"trials": 8, "epochs": 2, "budget": {"minutes": 2.5}, "space": MIXED}
    assert len(run(searching(**config), images, tmp_path).oracle.rows()) == 3


def test_the_announcement_names_the_budget_of_minutes_if_it_is_shorter(images, tmp_path, trained, caplog):
    caplog.set_level(logging.INFO, "models.tuner")
    search = create(searching(trials=4, budget={"minutes": 0.01}), images, tmp_path)
    search._announce(trials.Timing(elapsed=2.0, features=0.0, setup=1.0, step=0.2, batch_size=8))
    assert re.fullmatch(
        r"4 trials of up to 1 epoch on 48 images, about \d+ s \(tuner.budget.minutes allows 0.6 s\)",
        caplog.messages[-1],
    )


def test_a_budget_that_is_too_small_for_one_trial_is_refused(images, tmp_path):
    with pytest.raises(ConfigError, match=r"the first trial trains for 4 epochs on 48 images, more than"):
        create(searching(epochs=4, budget={"images": 100}), images, tmp_path)


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
    search = run(samples.small_settings(), images, tmp_path)
    found = points(search)
    assert trained_batch_sizes == [point[SIZE] for point in found]
    assert peak_rates == [point[RATE] for point in found]
    assert sorted(trained_batch_sizes) == [8, 16]
    messages = [record.getMessage() for record in caplog.records if record.name == "models.tuner"]
    announced, *trials, best = messages
    assert announced.startswith("2 trials of up to 1 epoch on 48 images, about ")
    assert [message.split(":")[0] for message in trials] == ["trial 1/2", "trial 2/2"]
    assert "best so far" in trials[0]
    assert re.search(r"about \d+ s left\)", trials[0])
    assert "budget" not in announced
    assert best.startswith("best of 2 trials: trainer.learning_rate ")


def test_trials_that_fail_count_as_failed_and_are_not_the_best(images, tmp_path, trained):
    errors = [TrainingDivergedError("loss is nan"), MemoryError("too much"), None, None]

    def accuracy(settings, *_):
        if error := errors.pop(0):
            raise error
        return 0.5

    trained["accuracy"] = accuracy
    rows = run(searching(trials=4, space=MIXED), images, tmp_path).oracle.rows()
    assert [(row["state"], row["score"], row["reason"]) for row in rows] == [
        ("failed", None, "loss is nan"),
        ("failed", None, "too much"),
        ("complete", 0.5, None),
        ("complete", 0.5, None),
    ]


def test_running_out_of_the_memory_of_a_gpu_is_a_failed_trial(images, tmp_path, monkeypatch, trained):
    builds = []

    def build(*_):
        builds.append(None)
        if len(builds) == 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore lines")
        return TINY

    monkeypatch.setattr(loop, "build", build)
    rows = run(searching(), images, tmp_path).oracle.rows()
    assert [row["reason"] for row in rows] == ["OOM when allocating", None]


def test_the_search_fails_if_all_trials_fail(images, tmp_path, trained):
    def accuracy(*_):
        raise TrainingDivergedError("loss is nan")

    trained["accuracy"] = accuracy
    with pytest.raises(TrainingDivergedError) as error:
        run(searching(trials=4), images, tmp_path)
    told = str(error.value)
    assert "4 failed: trial 1: loss is nan; trial 2: loss is nan; trial 3: loss is nan; and 1 more, " in told
    assert told.count("lower") == 1


def test_any_other_error_ends_the_search_at_the_first_trial(images, tmp_path, trained):
    def accuracy(*_):
        raise KeyError("a mistake")

    trained["accuracy"] = accuracy
    search = create(searching(), images, tmp_path)
    with pytest.raises(keras_tuner.errors.FatalError, match=r"a trial cannot be run.*a mistake"):
        search.search(verbose=0)
    assert len(search.oracle.trials) == 1


def test_tuner_fn_reads_the_fn_args_and_never_the_test_split(fn_args, raw_examples, tmp_path):
    # The splits lie side by side; a copy without test shows that nothing reads it.
    for split in ("train", "val"):
        shutil.copytree(raw_examples.directory / split, tmp_path / "examples" / split)
    arguments = fn_args(
        samples.small_settings(tuner={"max_train_images": 20}),
        train_files=[str(tmp_path / "examples" / "train" / "*")],
        eval_files=[str(tmp_path / "examples" / "val" / "*")],
    )
    result = tuner.tuner_fn(arguments)
    assert result.fit_kwargs == {"verbose": 0}
    assert (result.tuner.oracle.objective.name, result.tuner.oracle.objective.direction) == (
        "val_accuracy",
        "max",
    )
    assert len(result.tuner.train_images) == 20
    assert len(result.tuner.val_images) == 30
    assert Path(result.tuner.project_dir).parent == tmp_path / "working"
    result.tuner.search(**result.fit_kwargs)
    assert len(result.tuner.oracle.rows()) == 2


@pytest.mark.parametrize(
    ("searched", "tuned"),
    [
        ({RATE: {"min": 0.01, "max": 0.01, "log": True}, SIZE: [8, 16]}, {SIZE}),
        ({RATE: {"min": 0.001, "max": 0.01}, SIZE: [8]}, {RATE}),
    ],
)
def test_a_range_of_a_single_value_is_not_tuned(images, tmp_path, trained, searched, tuned):
    search = run(searching(trials=2, space=searched), images, tmp_path)
    best = search.get_best_hyperparameters()[0].get_config()
    settings = samples.small_settings(trainer={"learning_rate": 0.01, "batch_size": 8})
    used = trainer.hyperparameters(settings, best)
    assert {name for name, entry in used.items() if entry["source"] == "tuner"} == tuned
    assert {name: entry["value"] for name, entry in used.items()} == best["values"]


def test_the_search_ends_when_all_points_are_tried(images, tmp_path, trained):
    for algorithm in ALGORITHMS[:3]:
        search = run(
            searching(trials=6, algorithm=algorithm, space={SIZE: [8, 16], RATE: [0.01]}),
            images,
            tmp_path / algorithm,
        )
        assert sorted(point[SIZE] for point in points(search)) == [8, 16]


def test_values_come_back_from_keras_tuner_as_they_were():
    settings = samples.small_settings()
    # The order of flags is KerasTuner's own.
    mixed = {key: entry for key, entry in MIXED.items() if key != "augmentation.flip"}
    dimensions = spaces.resolve(
        spaces.parse({**mixed, "trainer.crop_scales": [[1.0], [0.75, 1.0]]}), settings
    )
    kinds = {hp.name: hp for hp in space.hyperparameters(dimensions).space}
    for dimension in dimensions:
        for fraction in (0.0, 0.5, 0.99):
            value = spaces.decode({"x": kinds[dimension.key].prob_to_value(fraction)})["x"]
            expected = dimension.at(fraction)
            assert value == (list(expected) if isinstance(expected, tuple) else pytest.approx(expected))


def test_the_table_of_trials_holds_values_of_any_type(images, tmp_path, trained):
    search = run(searching(trials=3, space=MIXED), images, tmp_path)
    rows, described = search.oracle.rows(), search.describe()
    results.write(str(tmp_path / results.TRIALS), rows, described)
    read, search_read = results.read(str(tmp_path / results.TRIALS))
    assert read == rows
    assert search_read == {**described, "settings": list(MIXED)}
