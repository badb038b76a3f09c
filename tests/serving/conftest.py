"""SavedModels and a server that the tests of serving share."""

import pytest

from tests.serving import samples


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """SavedModels by tag, 1 to 3; the third one calls bright images dark."""
    folder = tmp_path_factory.mktemp("saved")
    names = {1: samples.NAMES, 2: samples.NAMES, 3: samples.NAMES[::-1]}
    return {tag: samples.save(folder / str(tag), tag, names[tag]) for tag in names}


@pytest.fixture(scope="module")
def served(saved, tmp_path_factory):
    """A server of version 1 of model m, which tests must not change."""
    root = tmp_path_factory.mktemp("models")
    samples.push(saved[1], root / "m", 1)
    with samples.serve(root) as running:
        yield running
