"""Tests the command line of Beam, with Beam's own parser."""

import logging
import re
import sys

import apache_beam as beam
import google.auth
import pytest
from apache_beam.options import pipeline_options
from apache_beam.portability.api import beam_runner_api_pb2
from google.auth import credentials
from tfx.utils import dependency_utils

from pipeline.beam import arguments as beam_arguments
from settings import loading

ROOT, IMAGE = "gs://bucket/runs", "registry/pipeline:1"
ON_DATAFLOW = (
    *("beam.runner=dataflow", "beam.dataflow.project=my-project", "beam.dataflow.region=europe-west1"),
    *(f"root={ROOT}", "kubeflow.data_uri=gs://bucket/data"),
)
# Runner -> settings that give a value to every option of the runner.
EVERY_OPTION = {
    "dataflow": (
        *ON_DATAFLOW,
        "beam.dataflow.temp_location=gs://bucket/temporary",
        "beam.dataflow.sdk_container_image=registry/workers:1",
        "beam.dataflow.num_workers=2",
        "beam.dataflow.max_num_workers=5",
        "beam.dataflow.machine_type=n1-standard-4",
        "beam.dataflow.worker_zone=europe-west1-b",
        "beam.dataflow.disk_size_gb=30",
        "beam.dataflow.service_account_email=workers@my-project.iam.gserviceaccount.com",
        "beam.dataflow.network=net",
        "beam.dataflow.subnetwork=regions/europe-west1/subnetworks/sub",
        "beam.dataflow.no_use_public_ips=true",
        "beam.dataflow.dataflow_kms_key=projects/p/locations/l/keyRings/r/cryptoKeys/k",
        "beam.dataflow.labels=[team=vision, cost=low]",
        "beam.dataflow.dataflow_service_options=[enable_prime]",
        "beam.dataflow.experiments=[shuffle_mode=appliance, other]",
    ),
    "flink": (
        "beam.runner=flink",
        "beam.flink.job_endpoint=flink:8099",
        "beam.flink.artifact_endpoint=flink:8098",
        "beam.flink.environment_type=EXTERNAL",
        "beam.flink.environment_config=localhost:50000",
        "beam.flink.sdk_worker_parallelism=2",
        "beam.flink.parallelism=4",
        "beam.flink.max_parallelism=8",
    ),
    "spark": (
        "beam.runner=spark",
        "beam.spark.job_endpoint=spark:8099",
        "beam.spark.artifact_endpoint=spark:8098",
        "beam.spark.environment_type=PROCESS",
        'beam.spark.environment_config=\'{"command": "/opt/apache/beam/boot"}\'',
        "beam.spark.sdk_worker_parallelism=2",
    ),
}


def _arguments(*overrides):
    loaded = loading.load(overrides=[f"kubeflow.image={IMAGE}", *overrides])
    return beam_arguments(loaded.beam, loaded.root, loaded.kubeflow.image)


@pytest.fixture
def no_google(monkeypatch):
    """Replaces the calls by which Beam gets credentials from Google and checks the bucket."""
    monkeypatch.setattr(google.auth, "default", lambda **_: (credentials.AnonymousCredentials(), None))
    monkeypatch.setattr(
        pipeline_options.GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda *_: None
    )


@pytest.mark.parametrize("runner", EVERY_OPTION)
def test_beam_parses_every_option_with_its_value(runner, caplog):
    section = getattr(loading.load(overrides=[f"kubeflow.image={IMAGE}", *EVERY_OPTION[runner]]).beam, runner)
    expected = section.model_dump()
    assert section.model_fields_set == expected.keys()
    with caplog.at_level(logging.WARNING):
        found = pipeline_options.PipelineOptions(_arguments(*EVERY_OPTION[runner])).get_all_options()
    # The Beam of Python 3.10 does not know this flag.
    unknown = ["--no_save_main_session"] if runner == "dataflow" and sys.version_info < (3, 11) else []
    assert re.findall(r"unparseable args: (.*)", caplog.text) == [str(unknown)] * bool(unknown)
    found["no_use_public_ips"] = found["use_public_ips"] is False
    # Beam does not parse numbers that only a job server reads; they remain text.
    assert {key: str(found[key]) for key in expected} == {
        key: str(list(value) if isinstance(value, tuple) else value) for key, value in expected.items()
    }


@pytest.mark.parametrize("runner", EVERY_OPTION)
def test_beam_accepts_all_options(runner, no_google):
    arguments = _arguments(*EVERY_OPTION[runner])
    assert type(beam.Pipeline(argv=arguments).runner).__name__ == f"{runner.capitalize()}Runner"
    without_project = [each for each in arguments if not each.startswith("--project")]
    if runner == "dataflow":
        with pytest.raises(ValueError, match="project"):
            beam.Pipeline(argv=without_project)


@pytest.mark.parametrize(
    "overrides",
    [
        ON_DATAFLOW,
        *EVERY_OPTION.values(),
        ("beam.runner=flink", "beam.flink.job_endpoint=flink:8099"),
        ("beam.direct.processes=2",),
    ],
)
def test_tfx_does_not_ship_a_wheel_of_itself(overrides):
    arguments = _arguments(*overrides)
    assert dependency_utils.make_beam_dependency_flags(arguments) == arguments


def test_dataflow_starts_its_workers_from_the_image_and_stages_no_code(no_google):
    arguments = [*_arguments(*ON_DATAFLOW), "--no_auth", "--dry_run=True"]
    pipeline = beam.Pipeline(argv=arguments)
    _ = pipeline | beam.Create([1]) | beam.Map(str)
    pipeline.run()
    (environment,) = pipeline.runner.proto_pipeline.components.environments.values()
    assert beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image == IMAGE
    staged = [
        beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(each.role_payload).staged_name
        for each in environment.dependencies
    ]
    assert set(staged) <= {"submission_environment_dependencies.txt"}
    assert pipeline.options.get_all_options()["temp_location"].startswith(f"{ROOT}/beam")


@pytest.mark.parametrize("runner", ["flink", "spark"])
def test_a_cluster_starts_its_workers_from_the_image_unless_a_setting_names_another(runner):
    settings = (f"beam.runner={runner}", f"beam.{runner}.job_endpoint=cluster:8099")
    assert f"--environment_config={IMAGE}" in _arguments(*settings)
    other = _arguments(*settings, f"beam.{runner}.environment_config=registry/workers:1")
    assert [each for each in other if each.startswith("--environment_config")] == [
        "--environment_config=registry/workers:1"
    ]


def test_beam_runs_in_this_process_unless_more_processes_are_set():
    assert _arguments() == []
    options = pipeline_options.PipelineOptions(_arguments("beam.direct.processes=3")).get_all_options()
    assert (options["direct_running_mode"], options["direct_num_workers"]) == ("multi_processing", 3)
