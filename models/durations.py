"""Durations for people to read, and the pace of messages about long work."""

import time

_SECONDS_BETWEEN_MESSAGES = 5.0


class Pace:
    """Tells when the next message about long work is due: every five seconds.

    Attributes:
      elapsed: seconds from the beginning of the work to the last call of `is_due`.
    """

    def __init__(self) -> None:
        self._started = self._last_message = time.monotonic()
        self.elapsed = 0.0

    def is_due(self) -> bool:
        """Tells whether a message is due now; the next one is due five seconds after it."""
        now = time.monotonic()
        self.elapsed = now - self._started
        if now - self._last_message < _SECONDS_BETWEEN_MESSAGES:
            return False
        self._last_message = now
        return True


def describe(seconds: float) -> str:
    """Formats a duration, for example as `12.3 s`, `2 min 05 s` or `1 h 07 min`.

    Args:
      seconds: the duration in seconds, at least 0.

    Returns:
      The formatted duration.
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def describe_left(seconds: float) -> str:
    """Formats the estimate of a duration, for example as `12 s`; a tenth of a second would pretend too much.

    Args:
      seconds: the duration in seconds, at least 0.
    """
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else describe(whole)
