"""Fixtures shared by the tests of the settings."""

from collections.abc import Callable
from typing import Any

import pytest

from settings import loading
from settings.base import ConfigError
from settings.pipeline import PipelineConfig


@pytest.fixture
def error_message() -> Callable[[str], str]:
    """Returns a function that loads an invalid override and returns the message of the error."""

    def load(override: str) -> str:
        with pytest.raises(ConfigError) as error:
            loading.load(overrides=[override])
        return str(error.value)

    return load


@pytest.fixture
def describe() -> Callable[[PipelineConfig], dict[str, tuple[Any, str]]]:
    """Returns a function that lists the settings of a configuration as key -> (value, origin)."""

    def list_settings(config: PipelineConfig) -> dict[str, tuple[Any, str]]:
        return {row["key"]: (row["value"], row["origin"]) for row in config.describe()}

    return list_settings
