"""Fixtures that tests of several packages share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from datasets import digest, shapes
from datasets.directory import Dataset
from pipeline import temporary
from settings import loading
from tests import browser


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lets all temporary files of the tests and their children lie in one folder, which is removed."""
    tmp_path_factory.getbasetemp()  # pytest's own folder, which stays, is created beside it
    with temporary.folder():
        yield


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; without it, the test is skipped."""
    with browser.launch() as launched:
        yield launched


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset directory with 160, 40 and 40 drawn images of 10 classes; tests must not change it."""
    return shapes.convert(tmp_path_factory.mktemp("tiny") / "dataset", train=160, val=40, test=40)


CUSTOM_JOB = (
    "kubeflow.vertex={project: p, region: europe-west4}",
    "kubeflow.steps.Trainer={machine_type: n1-standard-8, workers: 2}",
)


@pytest.fixture(scope="session")
def compiled_files(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compiled files by name: `vertex` and `kfp` with a Tuner, `vertex-no-tune` and `kfp-no-tune` without.

    The Trainer of `vertex-no-tune` is a custom job in project p and region europe-west4.
    """
    from pipeline.kubeflow import compiling  # noqa: PLC0415 - imports TFX.

    folder = tmp_path_factory.mktemp("compiled")
    files = {}
    for target in ("vertex", "kfp"):
        for suffix, tune in (("", "true"), ("-no-tune", "false")):
            settings = loading.load(
                overrides=[
                    *("name=tiny", "root=gs://bucket/runs", "kubeflow.data_uri=gs://bucket/data"),
                    *("kubeflow.image=image:1", "trainer.epochs=2", f"tuner.enabled={tune}"),
                    *(CUSTOM_JOB if (target, suffix) == ("vertex", "-no-tune") else ()),
                ]
            )
            file = folder / f"{target}{suffix}"
            compiled = compiling.compile_pipeline(
                settings, "tiny", tiny_dataset, digest.of_directory(tiny_dataset.path), target
            )
            file.write_text(compiling.serialize(compiled, target))
            files[file.name] = file
    return files
