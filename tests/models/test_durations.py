import pytest

from models import durations


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (9.7, "10 s"), (59.7, "1 min 00 s"), (125.4, "2 min 05 s"), (4020, "1 h 07 min")],
)
def test_the_time_left_is_in_whole_seconds(seconds, text):
    assert durations.describe_left(seconds) == text


def test_messages_are_due_every_five_seconds(monkeypatch):
    monkeypatch.setattr(durations.time, "monotonic", iter([0.0, 2.0, 5.5, 7.0, 10.5]).__next__)
    pace = durations.Pace()
    assert [(pace.is_due(), pace.elapsed) for _ in range(4)] == [
        (False, 2.0),
        (True, 5.5),
        (False, 7.0),
        (True, 10.5),
    ]
