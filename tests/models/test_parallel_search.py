import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras_tuner
import pytest
import tensorflow as tf

from models import tuner
from models.search import oracles, parallel, plan, trials, worker
from models.training.run import TrainingDivergedError
from settings.base import ConfigError
from settings.training import TunerConfig
from tests.models import fake_worker, samples
from tests.models.conftest import KilledError

SPACE = {
    fake_worker.DROPOUT: {"min": 0, "max": 0.5},
    "trainer.batch_size": [8, 16],
    "trainer.optimizer": ["adam", "adamw"],
    "trainer.weight_decay": [None, 0.1],
}


@pytest.fixture(scope="module")
def images():
    return samples.colored(48, 8, seed=0), samples.colored(24, 8, seed=1)


@pytest.fixture
def cores(monkeypatch):
    """Cores for four processes, whatever this machine has."""
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(tuner, "_cores", lambda: [core] * 4)


@pytest.fixture
def fake(monkeypatch, cores):
    """Replaces trainings in this and in other processes; returns a function that sets their behaviour."""
    monkeypatch.setattr(parallel, "PROGRAM", (fake_worker.__file__,))
    monkeypatch.setattr(trials.Trials, "run", lambda self, *args, **kwargs: fake_worker.run(*args, **kwargs))

    def behave(**behaviour):
        monkeypatch.setenv(fake_worker.BEHAVIOUR, json.dumps(behaviour))

    return behave


def run(images, directory, **config):
    settings = samples.small_settings(tuner={"space": SPACE, "epochs": 9, **config})
    search = tuner.create(settings, *images, len(samples.CLASS_NAMES), str(directory))
    search.search(verbose=0)
    return search


def results_of(search):
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in search.oracle.rows()]
    return rows, search.describe()["best"], search.oracle.start_order


@pytest.mark.parametrize("algorithm", ["random", "hyperband"])
def test_a_parallel_search_finds_the_same_as_one_process(images, tmp_path, fake, algorithm):
    # With 17 trials, Hyperband goes through rounds of nine, three and one, and begins another bracket.
    config = {"algorithm": algorithm, "trials": 17}
    serial = run(images, tmp_path / "serial", **config)
    fake(slow=[1, 8, 12])
    search = run(images, tmp_path / "parallel", parallel=3, **config)
    assert search.oracle.end_order != search.oracle.start_order
    assert results_of(search) == results_of(serial)


def test_points_of_a_parallel_bayesian_search_do_not_depend_on_speed(images, tmp_path, fake):
    found = []
    for slow in ([1, 2, 3, 10], [4, 6, 9]):
        fake(slow=slow)
        search = run(images, tmp_path / str(slow), algorithm="bayesian", trials=9, parallel=2)
        found.append(results_of(search))
    assert found[0] == found[1]
    points = [json.dumps([row[key] for key in SPACE]) for row in found[0][0]]
    assert len(set(points)) == 9


@pytest.fixture
def events(monkeypatch):
    """What the processes of a search do: `start`, and for each trial how many had ended when it began."""
    seen, ended = [], []
    start, begin, end = parallel.Workers._start, parallel.Workers.begin, tuner.Search._end_trial

    def recording_start(workers, number):
        seen.append("start")
        return start(workers, number)

    def recording_begin(*arguments, **options):
        seen.append(len(ended))
        begin(*arguments, **options)

    def recording_end(*arguments):
        ended.append(None)
        end(*arguments)

    monkeypatch.setattr(parallel.Workers, "_start", recording_start)
    monkeypatch.setattr(parallel.Workers, "begin", recording_begin)
    monkeypatch.setattr(tuner.Search, "_end_trial", recording_end)
    return seen


def test_all_rounds_of_a_parallel_bayesian_search_keep_all_processes_busy(images, tmp_path, fake, events):
    fake()
    run(images, tmp_path, algorithm="bayesian", trials=6, parallel=2)
    # The evenly spread trials are four instead of three, and the last two wait for them.
    assert events[:4] == ["start", "start", 0, 0]
    assert events[-2:] == [4, 4]


def test_no_more_processes_are_started_than_trials_are_left(images, tmp_path, fake, events):
    fake()
    run(images, tmp_path, trials=2, parallel=3)
    assert events == ["start", "start", 0, 0]


@pytest.mark.parametrize("algorithm", ["space_filling", "bayesian", "hyperband"])
def test_a_parallel_search_that_is_killed_at_any_moment_goes_on_with_the_same_points(
    images, tmp_path, fake, monkeypatch, algorithm
):
    config = {"algorithm": algorithm, "trials": 11, "epochs": 3, "parallel": 2}
    fake(slow=[2, 7])
    whole = run(images, tmp_path / "whole", **config)
    saves, save = [0], oracles.SearchOracle.save

    def dying_save(oracle):
        saves[0] += 1
        if saves[0] % 7 == 0:
            raise KilledError
        save(oracle)

    monkeypatch.setattr(oracles.SearchOracle, "save", dying_save)
    for _ in range(30):
        try:
            search = run(images, tmp_path / "killed", **config)
            break
        except KilledError:
            pass
    assert saves[0] > 14
    assert results_of(search) == results_of(whole)


def test_a_killed_process_is_a_failed_trial_and_another_one_runs_the_next(images, tmp_path, fake, caplog):
    caplog.set_level(logging.INFO, "models.tuner")
    fake(killed=[2])
    rows = run(images, tmp_path, trials=4, parallel=2).oracle.rows()
    assert [row["state"] for row in rows] == ["complete", "failed", "complete", "complete"]
    assert rows[1]["reason"] == (
        "its process was killed (SIGKILL): too little memory, or somebody has ended it"
    )
    assert (rows[1]["epochs"], rows[1]["images"]) == (1, 48)
    assert any("trial 2/4: epoch 1/9, val_accuracy 0." in message for message in caplog.messages)
    assert "best so far" in caplog.messages[-2]


def test_the_search_fails_if_all_processes_are_killed(images, tmp_path, fake):
    fake(killed=[1, 2])
    with pytest.raises(TrainingDivergedError, match=r"2 failed: trial 1: its process was killed"):
        run(images, tmp_path, trials=2, parallel=2)


def test_an_error_or_ctrl_c_leaves_no_process_and_no_images_behind(images, tmp_path, fake, monkeypatch):
    started, start = [], parallel.Workers._start

    def recording_start(workers, number):
        started.append((start(workers, number), Path(workers._folder.name)))
        return started[-1][0]

    monkeypatch.setattr(parallel.Workers, "_start", recording_start)
    fake(broken=[1], slow=[2])
    with pytest.raises(keras_tuner.errors.FatalError, match=r"a trial cannot be run: 'a mistake'"):
        run(images, tmp_path / "error", trials=4, parallel=2)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuner.Search, "_show_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "interrupted", trials=4, parallel=2)
    assert len(started) == 4
    for running, folder in started:
        assert running.process.poll() is not None
        assert not folder.exists()


def test_a_process_ignores_signals_and_ends_with_its_pipe():
    process = subprocess.Popen(
        [sys.executable, fake_worker.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    start = worker.Start({}, "", 3, sorted(os.sched_getaffinity(0)))
    trial = {"values": {fake_worker.DROPOUT: 0.1}, "epochs": 1, "name": "trial 1/1", "timed": False}
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(vars(start)) + "\n" + json.dumps(trial) + "\n")
    process.stdin.flush()
    assert "curve" in json.loads(process.stdout.readline())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    assert json.loads(process.stdout.readline())["record"]["score"] == pytest.approx(0.5)
    process.stdin.close()  # as the system does when the search is killed
    assert process.wait(timeout=10) == 0


def test_a_trial_is_trained_in_another_process(images, tmp_path, cores, caplog):
    caplog.set_level(logging.INFO, "models.tuner")
    config = {"space": {"trainer.batch_size": [8]}, "trials": 1, "epochs": 2}
    search = run(images, tmp_path / "parallel", parallel=2, **config)
    announced = caplog.messages[0]
    assert announced.startswith("1 trial of up to 2 epochs on 48 images, 2 at a time, about ")
    assert search.describe()["estimated_seconds"] < 2 * search.describe()["seconds"]
    (row,) = search.oracle.rows()
    assert (row["state"], row["images"], len(row["curve"])) == ("complete", 96, 2)
    assert row["curve"][-1] == row["score"] > 0.5  # that of chance is 0.33


def test_more_processes_than_cores_and_a_gpu_are_refused(images, tmp_path, monkeypatch):
    config = TunerConfig(parallel=3)
    with pytest.raises(
        ConfigError, match=r"tuner.parallel=3: each trial needs a core .* Set tuner.parallel=2"
    ):
        config.check_parallel(2, has_gpu=False)
    with pytest.raises(ConfigError, match=r"tuner.parallel=3: .* this one has a GPU"):
        config.check_parallel(8, has_gpu=True)
    TunerConfig(parallel=1).check_parallel(1, has_gpu=True)
    monkeypatch.setattr(tuner, "_cores", lambda: [0])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [])
    with pytest.raises(ConfigError, match=r"1 can be used here. Set tuner.parallel=1$"):
        run(images, tmp_path, parallel=2)


@pytest.mark.parametrize(
    ("cores", "count", "expected"),
    [([0, 1], 2, [[0], [1]]), ([0, 2, 4, 6, 8], 2, [[0, 2, 4], [6, 8]]), ([7], 1, [[7]])],
)
def test_processes_share_all_cores(cores, count, expected):
    assert parallel.shares(cores, count) == expected


def test_the_duration_of_trials_at_the_same_time():
    assert plan.duration([3, 1, 1, 1], 1) == 6
    assert plan.duration([3, 1, 1, 1], 2) == 3
    assert plan.duration([1, 1, 3], 2) == 4
    assert plan.duration([], 2) == 0
