"""The limits that a model keeps before it is pushed."""

from __future__ import annotations

from pydantic import Field

from settings.base import PositiveFloat, Section


class ServingCheckConfig(Section):
    """What ServingCheck accepts, measured on its machine; null: no limit."""

    max_load_seconds: PositiveFloat | None = Field(
        None, description="longest time that loading the model takes, in seconds, above 0; null: no limit"
    )
    max_p50_ms: PositiveFloat | None = Field(
        None,
        description="longest median time of a request with a single image, of any signature that predicts, "
        "in milliseconds, above 0; null: no limit",
    )
    max_p99_ms: PositiveFloat | None = Field(
        None,
        description="longest 99th percentile of the time of a request with a single image, in milliseconds, "
        "above 0; null: no limit",
    )
    max_memory_mb: PositiveFloat | None = Field(
        None,
        description="largest memory of the process that serves the model, TensorFlow included, in megabytes "
        "of 10^6 bytes, above 0; null: no limit",
    )
