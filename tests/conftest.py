"""What tests of several packages share."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from datasets import shapes
from datasets.directory import Dataset
from tests import browser


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; where it is missing the test is skipped."""
    with browser.launch() as launched:
        yield launched


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset directory of 160, 40 and 40 drawn images of 10 classes; only to be read."""
    return shapes.convert(tmp_path_factory.mktemp("tiny") / "dataset", train=160, val=40, test=40)
