import logging
import re

import pytest

from models.data.crops import Crops
from models.training import monitor, progress, schedules
from models.training.early_stopping import EarlyStopping
from models.training.run import BestWeights, Phase, Run


class Clock:
    """A clock whose time a test sets."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


class Weightless:
    """Stands in for a model without weights."""

    def get_weights(self):
        return []


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    return clock


def run_phase(clock, *, epochs, steps, crop_scales=(1.0,), step_seconds=lambda epoch, step: 8.0):
    """Calls the callbacks as Keras does in a phase, and returns its epochs.

    Each step has 100 images, waits 2 s for its batch and then takes `step_seconds`; a validation takes 5 s.
    """
    run = Run(BestWeights(Weightless()))
    phase = Phase("training", epochs, 0.1, 100)
    schedule = schedules.Schedule("constant", 0.1, epochs * steps, 0)
    progress_callback = progress.Progress(phase, schedule, Crops(crop_scales, epochs), 100 * steps, steps)
    monitor_callback = monitor.Monitor(None, run, phase, EarlyStopping(schedule, epochs), progress_callback)
    progress_callback.on_train_begin()
    for epoch in range(epochs):
        progress_callback.on_epoch_begin(epoch)
        for step in range(steps):
            progress_callback.on_train_batch_begin(step)
            clock.seconds += 2.0
            progress_callback.on_batch_arrived()
            clock.seconds += step_seconds(epoch, step)
            progress_callback.on_train_batch_end(step, {"loss": 1.0, "accuracy": 0.5})
        progress_callback.on_test_begin()
        clock.seconds += 5.0
        monitor_callback.on_epoch_end(
            epoch, {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0 / (epoch + 1), "val_accuracy": 0.5}
        )
    return run.history.epochs


def test_speed_and_data_wait_leave_out_the_first_step_which_compiles(clock):
    first, second = run_phase(
        clock, epochs=2, steps=5, step_seconds=lambda epoch, step: 8.0 if epoch or step else 60.0
    )
    assert first.images_per_second == pytest.approx(10.0)
    assert second.images_per_second == pytest.approx(10.0)
    assert first.data_wait == pytest.approx(0.2)
    assert second.data_wait == pytest.approx(0.2)
    assert (first.seconds, second.seconds) == (pytest.approx(45.0), pytest.approx(55.0))


def test_an_epoch_of_only_the_first_step_has_no_speed(clock):
    first, second = run_phase(clock, epochs=2, steps=1)
    assert (first.images_per_second, first.data_wait) == (None, None)
    assert (second.images_per_second, second.data_wait) == (pytest.approx(10.0), pytest.approx(0.2))


@pytest.mark.parametrize(
    ("crop_scales", "left"),
    [
        # After 3 of 10 steps, of which two were timed with 10 s each, 7 steps are left.
        ((1.0,), "1 min 10 s"),
        # The five steps of the second epoch have four times the pixels, so 2 + 4 x 5 times 10 s are left.
        ((0.5, 1.0), "3 min 40 s"),
    ],
)
def test_the_time_left_takes_the_size_of_crops_into_account(clock, caplog, crop_scales, left):
    caplog.set_level(logging.INFO, "models")
    run_phase(clock, epochs=2, steps=5, crop_scales=crop_scales)
    (message,) = (text for text in caplog.messages if "epoch 1/2, step 3/5" in text)
    assert re.search(rf"10 images/s, at most {left} left$", message)
