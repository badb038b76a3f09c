"""Formats durations for people to read."""


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
