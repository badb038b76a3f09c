"""The program of a search's process, with trials that compute their accuracy instead of training.

The environment variable FAKE_TRIALS says as JSON how they behave: `slow` is the numbers of the trials that
take longer, `killed` of those whose process is killed, and `broken` of those that raise an error.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.search import worker

BEHAVIOUR = "FAKE_TRIALS"
DROPOUT = "model.cnn.dropout"


def run(
    values: Mapping[str, Any],
    epochs: int,
    name: str,
    on_timed: Callable[[Any], None] | None = None,
    on_epoch: Callable[[Sequence[float]], None] | None = None,
) -> dict[str, Any]:
    """Stands in for `Trials.run`; more dropout is better."""
    del on_timed
    behaviour, number = (
        json.loads(os.environ.get(BEHAVIOUR, "{}")),
        int(name.split()[1].split("/", maxsplit=1)[0]),
    )
    curve = [0.4 + values[DROPOUT] + 0.01 * epoch for epoch in range(epochs)]
    if on_epoch:
        on_epoch(curve[:1])
    time.sleep(0.1 * (number in behaviour.get("slow", [])))
    if number in behaviour.get("killed", []):
        os.kill(os.getpid(), signal.SIGKILL)
    if number in behaviour.get("broken", []):
        raise KeyError("a mistake")
    return {
        "epochs": epochs,
        "curve": curve,
        "seconds": 0.1,
        "images": 48 * epochs,
        "state": "complete",
        "reason": None,
        "score": curve[-1],
    }


if __name__ == "__main__":
    worker.serve(lambda start: run)
