import math

import numpy as np
import pytest

from models.data.crops import Crops
from models.training import schedules


def test_cosine_schedule_equals_the_closed_form():
    schedule = schedules.Schedule("cosine", peak=0.4, steps=100, warmup_steps=20)
    for step, expected in {0: 0.4 / 20, 9: 0.2, 19: 0.4, 20: 0.4, 60: 0.2, 100: 0.0, 120: 0.0}.items():
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)
    assert float(schedule(40)) == pytest.approx(0.2 * (1 + math.cos(math.pi / 4)))


def test_linear_schedule_rises_and_falls_in_straight_lines():
    schedule = schedules.Schedule("linear", peak=0.4, steps=100, warmup_steps=20)
    expected = {0: 0.4 / 20, 19: 0.4, 20: 0.4, 40: 0.3, 60: 0.2, 100: 0.0, 120: 0.0}
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-7)


def test_constant_schedule_stays_at_the_peak_after_warm_up():
    schedule = schedules.Schedule("constant", peak=0.3, steps=10, warmup_steps=3)
    np.testing.assert_allclose(
        [float(schedule(s)) for s in (0, 1, 2, 3, 9)], [0.1, 0.2, 0.3, 0.3, 0.3], rtol=1e-6
    )
    assert float(schedules.Schedule("constant", 0.3, 10, 0)(0)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("kind", "settled"), [("cosine", [61, 99]), ("linear", [61, 99]), ("constant", [0, 60])]
)
def test_a_rate_is_settled_once_it_has_fallen_to_half_of_its_peak(kind, settled):
    schedule = schedules.Schedule(kind, peak=0.4, steps=100, warmup_steps=20)
    assert all(schedule.settled(step) for step in settled)
    if kind != "constant":
        # The low rates at the start of the warm-up do not count.
        assert not any(schedule.settled(step) for step in (0, 5, 20, 59))


def test_each_scale_has_an_equal_share_of_the_epochs():
    crops = Crops((0.5, 0.75, 1.0), epochs=6)
    scales = [float(crops.scale(np.float32(done))) for done in (0.0, 1.99, 2.0, 3.99, 4.0, 5.99, 6.0)]
    assert scales == [0.5, 0.5, 0.75, 0.75, 1.0, 1.0, 1.0]
    # Two epochs each with a quarter, 9/16 and all of the pixels.
    whole = 0.25 + 0.5625 + 1.0
    for done, seen in {0: 0.0, 1: 0.125, 2: 0.25, 3: 0.25 + 0.28125, 6: whole}.items():
        assert crops.pixels(done) == pytest.approx(seen / whole)
    assert crops.smaller
    assert not Crops((1.0, 1.0), epochs=6).smaller
