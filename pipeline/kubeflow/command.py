"""Compiling into a file and submitting it: what `kubeflow_runner.py` calls."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from datasets import catalog, directory
from pipeline import console
from pipeline.kubeflow import submission
from settings.base import ConfigError
from settings.kubeflow import BackEnd, KubeflowConfig
from settings.pipeline import PipelineConfig


def compile_to(output: Path, config: PipelineConfig, target: BackEnd) -> None:
    """Compiles the pipeline into a file; needs no network and no credentials, and writes nothing else.

    Args:
      output: the file.
      config: the settings; `data` is a dataset directory on this machine.
      target: where the pipeline is to run.

    Raises:
      ConfigError: the settings, the data or the file cannot be used for that.
      OSError: the file cannot be written.
    """
    if config.kubeflow.image is None:
        raise ConfigError(
            "kubeflow.image is not set; expected, here or as --image, the image with this project's code"
        )
    config.kubeflow.check_custom_job(target)
    config.check_places(target)
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {output}: its folder does not exist")
    if output.is_dir():
        raise ConfigError(f"--output {output}: expected a file, found a folder")
    dataset = _read_dataset(config.data or "")
    config.evaluation.check_slices(dataset.features)
    name = config.name or catalog.slug(dataset.path)
    with (
        console.logs_to(Path(os.devnull), verbose=False) as screen,
        console.waiting(screen, "Loading TensorFlow and TFX"),
    ):
        # Takes some 20 seconds, which nobody should wait for before a wrong setting is refused.
        from pipeline.kubeflow import compiling  # noqa: PLC0415

        compiled = compiling.compile_pipeline(config, name, dataset, target)
    output.write_text(compiling.serialize(compiled, target), encoding="utf-8")


def _read_dataset(data: str) -> directory.Dataset:
    if "://" in data:
        raise ConfigError(
            f"--data: expected a dataset directory on this machine, found {data}; where the steps find "
            "its copy is --data-uri"
        )
    try:
        return directory.read(Path(data).expanduser())
    except directory.DatasetError as error:
        raise ConfigError(
            f"--data: {error}; `python -m datasets.cifar10 DIR`, for one, writes a whole one"
        ) from None


def submit(
    file: Path, target: BackEnd, config: PipelineConfig, *, schedule: str | None = None, wait: bool = False
) -> None:
    """Submits a compiled file and prints the link of its run or schedule.

    Args:
      file: as `compile_to` wrote it.
      target: what it was compiled for.
      config: the settings of the back end, and those that the run changes.
      schedule: the five fields of cron, for a run at each of these times; None starts one run.
      wait: whether to follow the run to its end.

    Raises:
      ConfigError: the file or the settings cannot be used.
      SubmissionError: the back end refused the run, or the run that is waited for did not succeed.
      KeyboardInterrupt: Ctrl-C while waiting; the run goes on.
    """
    if schedule is not None:
        if wait:
            raise ConfigError("--wait follows one run; a schedule has no end")
        if len(schedule.split()) != 5:
            raise ConfigError(
                f"--schedule {schedule!r}: expected the five fields of cron, such as '0 3 * * 1'"
            )
    request = submission.read(file, target, config)
    # The clients of the back ends print messages of their own, which are not for people.
    with console.logs_to(Path(os.devnull), verbose=False) as screen:
        with console.waiting(screen, "Submitting"):
            submitted = _send(request, target, config.kubeflow, schedule)
        screen.print("Schedule" if schedule else "Run", submitted.link, soft_wrap=True, highlight=False)
        if not wait:
            return
        ended = _follow(submitted, screen)
    if not ended.has_succeeded:
        raise submission.SubmissionError("; ".join(ended.problems) or f"the run was {ended.state}")


def _send(
    request: submission.Submission, target: BackEnd, config: KubeflowConfig, schedule: str | None
) -> submission.Submitted:
    if target == "kfp":
        from pipeline.kubeflow import kfp_runs  # noqa: PLC0415 - takes time, and Vertex does not need it.

        return kfp_runs.submit(request, config.kfp, schedule)
    # Without credentials, Google's metadata server is looked for, by default three times for three seconds.
    os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    from pipeline.kubeflow import vertex_runs  # noqa: PLC0415 - takes some 3 seconds.

    return vertex_runs.submit(request, config.vertex, schedule)


def _follow(submitted: submission.Submitted, screen: Console) -> submission.Progress:
    def show(line: str) -> None:
        screen.print(line, highlight=False, markup=False)

    assert submitted.look is not None
    try:
        with console.waiting(screen, "Waiting for the run; Ctrl-C stops waiting, not the run"):
            ended = submission.follow(submitted.look, show)
    except KeyboardInterrupt:
        show("No longer waiting; the run continues:")
        screen.print(submitted.link, soft_wrap=True, highlight=False)
        raise
    except submission.SubmissionError as error:
        raise submission.SubmissionError(
            f"the run continues, but its progress is no longer known: {error}. See {submitted.link}"
        ) from None
    show(f"The run is {ended.state}.")
    return ended
