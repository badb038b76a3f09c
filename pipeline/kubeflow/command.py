"""Compiles the pipeline into a file and submits it; `kubeflow_runner.py` calls it."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from datasets import catalog, directory, terminal
from pipeline import console
from pipeline.kubeflow import submission
from settings import memory
from settings.base import ConfigError
from settings.kubeflow import BackEnd, KubeflowConfig, StepConfig
from settings.pipeline import PipelineConfig
from settings.places import scheme_and_bucket


def compile_to(output: Path, config: PipelineConfig, target: BackEnd) -> None:
    """Compiles the pipeline into a file, without network or credentials.

    It writes only that file.

    Args:
      output: the file to write.
      config: the settings; `data` is a dataset directory on this machine.
      target: where the pipeline will run.

    Raises:
      ConfigError: the settings, the dataset or the path of the file is not valid for the target.
      OSError: the file cannot be written.
    """
    if config.kubeflow.image is None:
        raise ConfigError(
            "kubeflow.image is not set; pass the container image with this project's code as --image"
        )
    config.kubeflow.check_custom_job(target)
    config.check_places(target)
    config.kubeflow.check_folders(target)
    if target == "kfp":
        _warn_of_other_buckets(config)
    config.pusher.check_target(target, config.kubeflow.vertex)
    config.pusher.check_promotion(config.kubeflow.serving or config.root)
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {output}: its folder does not exist")
    if output.is_dir():
        raise ConfigError(f"--output {output}: expected a file, found a folder")
    dataset = _read_dataset(config.data or "")
    data_digest = terminal.compute_digest(dataset)
    config.evaluation.check_slices(dataset.features)
    _check_search(config)
    _warn_of_memory(config, dataset)
    name = config.name or catalog.slug(dataset.path)
    with (
        console.logs_to(Path(os.devnull), verbose=False) as screen,
        console.waiting(screen, "Loading TensorFlow and TFX"),
    ):
        # This import takes some 20 seconds; invalid settings are reported before.
        from pipeline.kubeflow import compiling  # noqa: PLC0415

        compiled = compiling.compile_pipeline(config, name, dataset, data_digest, target)
    output.write_text(compiling.serialize(compiled, target), encoding="utf-8")


def _warn_of_other_buckets(config: PipelineConfig) -> None:
    """Says which artifacts Kubeflow's launcher reads with other credentials than those of the root."""
    bucket = "://".join(scheme_and_bucket(config.root))
    for key, uri in config.other_buckets().items():
        terminal.note(
            f"warning: {key} is {uri}, and the root is in {bucket}. For artifacts in another bucket, "
            "Kubeflow uses the credentials in the environment of the pods instead of those of its own store; "
            "put both into one bucket, or give the pods access to it"
        )


def _check_search(config: PipelineConfig) -> None:
    """Checks that the Tuner's container can run as many trials at a time, as far as its resources are set."""
    step = config.kubeflow.steps.get("Tuner", StepConfig())
    if config.has_tuner:
        cores = config.tuner.parallel if step.cpu is None else max(1, int(step.cpu))
        config.tuner.check_parallel(cores, step.accelerator is not None)


def _warn_of_memory(config: PipelineConfig, dataset: directory.Dataset) -> None:
    """Says so if the Trainer's limit of memory is lower than what it is estimated to need without a GPU."""
    step = config.kubeflow.steps.get("Trainer", StepConfig())
    if step.memory_gb is None or step.accelerator is not None:
        return
    counts = directory.count_examples(dataset)
    needed = memory.estimate(config, dataset.image_size, counts, cores=max(1, round(step.cpu or 1))).memory
    if needed > step.memory_gb * 1e9:
        terminal.note(
            f"warning: the Trainer is estimated to need {needed / 1e9:.1f} GB of memory, and "
            f"kubeflow.steps.Trainer.memory_gb is {step.memory_gb:g}"
        )


def _read_dataset(data: str) -> directory.Dataset:
    if "://" in data:
        raise ConfigError(
            f"--data: expected a dataset directory on this machine, found {data}; pass the place where the "
            "steps read its copy as --data-uri"
        )
    try:
        return directory.read(Path(data).expanduser())
    except directory.DatasetError as error:
        raise ConfigError(
            f"--data: {error}; `python -m datasets.cifar10 DIR`, for example, writes a complete one"
        ) from None


def submit(
    file: Path, target: BackEnd, config: PipelineConfig, *, schedule: str | None = None, wait: bool = False
) -> None:
    """Submits a compiled file and prints a link to its run or schedule.

    Args:
      file: a file that `compile_to` wrote.
      target: the target that it was compiled for.
      config: the settings of the back end, and the runtime parameters that this run changes.
      schedule: the five fields of cron, for recurring runs; None starts one run now.
      wait: whether to wait for the end of the run.

    Raises:
      ConfigError: the file or the settings cannot be used.
      SubmissionError: the back end refused the run, or `wait` is set and the run did not succeed.
      KeyboardInterrupt: Ctrl-C while waiting; the run itself continues.
    """
    if schedule is not None:
        if wait:
            raise ConfigError("--wait waits for one run, and a schedule has no end; leave out one of them")
        if len(schedule.split()) != 5:
            raise ConfigError(
                f"--schedule {schedule!r}: expected the five fields of cron, such as '0 3 * * 1'"
            )
    request = submission.read(file, target, config)
    submission.check_places(request, target, config)
    # The client libraries of the back ends print messages of their own, which are hidden here.
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
        from pipeline.kubeflow import kfp_runs  # noqa: PLC0415 - slow, and Vertex does not need it.

        return kfp_runs.submit(request, config.kfp, schedule)
    # Without credentials, google.auth looks for Google's metadata server: by default three times, with a
    # timeout of three seconds.
    os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    from pipeline.kubeflow import vertex_runs  # noqa: PLC0415 - takes some 3 seconds.

    return vertex_runs.submit(request, config.vertex, schedule)


def _follow(submitted: submission.Submitted, screen: Console) -> submission.Progress:
    def show(line: str) -> None:
        screen.print(line, highlight=False, markup=False)

    assert submitted.poll is not None
    try:
        with console.waiting(screen, "Waiting for the run; Ctrl-C stops waiting, not the run"):
            ended = submission.follow(submitted.poll, show)
    except KeyboardInterrupt:
        show("No longer waiting; the run continues:")
        screen.print(submitted.link, soft_wrap=True, highlight=False)
        raise
    except submission.SubmissionError as error:
        raise submission.SubmissionError(
            f"the run continues, but its progress cannot be read: {error}. See {submitted.link}"
        ) from None
    show(f"The run is {ended.state}.")
    return ended
