import pytest


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("beam.runner=beam", "beam.runner: input should be 'direct', 'dataflow', 'flink' or 'spark'"),
        ("beam.flink.paralelism=2", "beam.flink.paralelism: unknown key; did you mean parallelism?"),
        (
            "beam.direct.num_workers=2",
            "num_workers: unknown key; did you mean beam.dataflow.num_workers? Allowed: processes",
        ),
        (
            "beam.dataflow.num_workers=2",
            "beam: beam.dataflow.num_workers has no effect with beam.runner=direct",
        ),
        (
            "beam={runner: flink, direct: {processes: 2}}",
            "beam.direct.processes has no effect with beam.runner",
        ),
        (
            "beam.runner=dataflow",
            "beam.runner=dataflow needs beam.dataflow.project; beam.runner=dataflow needs beam.dataflow.reg",
        ),
        ("beam.runner=flink", "beam: beam.runner=flink needs beam.flink.job_endpoint"),
        ("beam.runner=spark", "beam: beam.runner=spark needs beam.spark.job_endpoint"),
        (
            "beam.flink.job_endpoint=http://flink:80",
            "beam.flink.job_endpoint: expected host:port, such as `localhost:8099`",
        ),
        ("beam.flink.parallelism=many", "beam.flink.parallelism: input should be a valid integer"),
        ("beam.spark.environment_type=POD", "environment_type: input should be 'DOCKER', 'EXTERNAL', 'PROC"),
        ("beam.spark.environment_type=EXTERNAL", "EXTERNAL needs host:port of a worker pool"),
        (
            "beam.spark={environment_type: PROCESS, environment_config: boot}",
            'needs a JSON object with the key "command"',
        ),
        (
            "beam.spark={environment_type: LOOPBACK, environment_config: x}",
            "LOOPBACK takes no environment_config",
        ),
        (
            "beam.dataflow.project=My project",
            "beam.dataflow.project: expected the id of a Google Cloud project",
        ),
        (
            "beam.dataflow.temp_location=/tmp",
            "beam.dataflow.temp_location: expected a place such as `gs://BUCKET/beam`",
        ),
        (
            "beam.dataflow={num_workers: 3, max_num_workers: 2}",
            "num_workers (3) must not be more than max_num",
        ),
    ],
)
def test_invalid_settings_are_refused(error_message, override, expected):
    assert expected in error_message(override)
