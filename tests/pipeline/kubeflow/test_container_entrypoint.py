import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from components import artifacts
from datasets import checksums
from pipeline.kubeflow import container_entrypoint, local_copies, step_facts


def test_missing_types_are_replaced_by_the_declared_types_and_others_are_kept():
    invocation = {
        "inputs": {
            "artifacts": {
                "model": {"artifacts": [{"name": "3", "uri": "/model", "type": {"instanceSchema": ""}}]},
                "baseline": {"artifacts": [{"name": "4", "uri": "/other"}]},
                "schema": {"artifacts": [{"type": {"instanceSchema": "title: tfx.Schema"}}]},
            }
        }
    }
    declared = {
        "artifacts": {
            name: {"artifactType": {"instanceSchema": "title: tfx.Model"}}
            for name in ("model", "baseline", "schema")
        }
    }
    filled = container_entrypoint.complete(json.dumps(invocation), json.dumps(declared))
    types = {
        name: inputs["artifacts"][0]["type"]["instanceSchema"]
        for name, inputs in filled["inputs"]["artifacts"].items()
    }
    assert types == {
        "model": "title: tfx.Model",
        "baseline": "title: tfx.Model",
        "schema": "title: tfx.Schema",
    }
    assert filled["inputs"]["artifacts"]["model"]["artifacts"][0]["uri"] == "/model"


@pytest.fixture
def run(monkeypatch):
    """Runs the entry point and returns what it hands to TFX: the ExecutorInput and the arguments for Beam."""

    def run_(*argv):
        calls = []
        monkeypatch.setattr(container_entrypoint.kubeflow_v2_run_executor, "main", calls.append)
        monkeypatch.setattr(container_entrypoint.step_facts, "note", lambda *arguments: None)
        container_entrypoint.main(container_entrypoint.parse(["entrypoint.py", *argv]))
        ((args, beam_args),) = calls
        return json.loads(args.json_serialized_invocation_args), beam_args

    return run_


def _flags(invocation, inputs=None):
    flags = ["--executor_class_path=E", f"--json_serialized_invocation_args={json.dumps(invocation)}"]
    return flags if inputs is None else [*flags, f"--json_serialized_inputs_spec_args={json.dumps(inputs)}"]


def test_the_name_of_the_program_is_not_an_argument_for_beam(run):
    assert run(*_flags({}))[1] == []
    assert run(*_flags({}), "--runner=R", "--region=r")[1] == ["--runner=R", "--region=r"]


def test_types_are_filled_in_if_the_inputs_are_declared(run):
    invocation = {"inputs": {"artifacts": {"model": {"artifacts": [{"uri": "/model"}]}}}}
    inputs = {"artifacts": {"model": {"artifactType": {"instanceSchema": "title: tfx.Model"}}}}
    assert run(*_flags(invocation))[0] == invocation
    filled, _ = run(*_flags(invocation, inputs))
    assert "tfx.Model" in json.dumps(filled)


def test_a_step_gets_local_copies_and_reports_uris(monkeypatch, tmp_path):
    monkeypatch.setenv(local_copies.PREFIX_VARIABLE, str(tmp_path))
    output_file = tmp_path / "output.json"
    invocation = {
        "inputs": {"artifacts": {"model": {"artifacts": [{"uri": "minio://b/model"}]}}},
        "outputs": {
            "artifacts": {"pushed": {"artifacts": [{"uri": "minio://b/pushed"}]}},
            "outputFile": str(output_file),
        },
    }

    def push(parsed):
        sent = json.loads(parsed[0].json_serialized_invocation_args)
        model = sent["inputs"]["artifacts"]["model"]["artifacts"][0]["uri"]
        pushed = sent["outputs"]["artifacts"]["pushed"]["artifacts"][0]["uri"]
        assert model == f"{tmp_path}/minio/b/model"
        assert sent["inputs"]["artifacts"]["model"]["artifacts"][0]["metadata"] == {
            artifacts.STORE_URI: "minio://b/model"
        }
        assert Path(pushed).is_dir()
        (Path(pushed) / "graph").write_text("a graph")
        metadata = {"model": f"{model}/Format-Serving", "pushed_destination": "s3://other/1", "n": 3}
        output_file.write_text(
            json.dumps({"artifacts": {"pushed": {"artifacts": [{"uri": pushed, "metadata": metadata}]}}})
        )

    monkeypatch.setattr(container_entrypoint.kubeflow_v2_run_executor, "main", push)
    variables = step_facts.variables(("components.pusher.component",))
    assert [each["name"] for each in variables] == [step_facts.MODULES_VARIABLE]
    monkeypatch.setenv(step_facts.MODULES_VARIABLE, variables[0]["value"])
    monkeypatch.setenv("PIPELINE_GIT_COMMIT", "f00d-dirty")
    container_entrypoint.main(
        container_entrypoint.parse(["entrypoint.py", local_copies.FLAG, *_flags(invocation)])
    )
    (reported,) = json.loads(output_file.read_text())["artifacts"]["pushed"]["artifacts"]
    assert reported["uri"] == "minio://b/pushed"
    noted = reported["metadata"]
    assert noted.pop("seconds") >= 0
    assert "components.pusher.executor" in json.loads(noted.pop("modules"))
    checksum = checksums.of_folder(tmp_path / "minio" / "b" / "pushed")
    assert noted == {
        **{"model": "minio://b/model/Format-Serving", "pushed_destination": "s3://other/1", "n": 3},
        **{"python": platform.python_version(), "tensorflow": version("tensorflow"), "tfx": version("tfx")},
        **{"git_commit": "f00d", "git_changes": True},
        **{"files": 1, "bytes": len("a graph"), "sha256": checksum.sha256},
    }


def test_files_in_a_bucket_are_not_read_for_a_checksum(tmp_path):
    output_file = tmp_path / "output.json"
    output_file.write_text(
        json.dumps({"artifacts": {"model": {"artifacts": [{"uri": "gs://nowhere/model"}]}}})
    )
    step_facts.note(str(output_file), 2.5)
    (reported,) = json.loads(output_file.read_text())["artifacts"]["model"]["artifacts"]
    assert reported["metadata"]["seconds"] == 2.5
    assert not {"files", "bytes", "sha256"} & reported["metadata"].keys()


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://b/k", "/gcs/b/k"),
        ("minio://b/k", "/minio/b/k"),
        ("s3://b/k/", "/s3/b/k/"),
    ],
)
def test_the_local_copy_of_each_store_lies_where_the_launcher_puts_it(uri, path, monkeypatch):
    monkeypatch.delenv(local_copies.PREFIX_VARIABLE, raising=False)
    assert local_copies.local_path(uri) == path


@pytest.mark.parametrize("uri", ["/mnt/volume/x", "oci://r/i"])
def test_an_artifact_that_the_launcher_does_not_copy_is_an_error(uri):
    with pytest.raises(ValueError, match=f"{uri}: expected a URI of a store that Kubeflow copies"):
        local_copies.local_path(uri)


def test_without_declared_types_parameters_are_still_put_in_place():
    invocation = {
        "inputs": {
            "artifacts": {"model": {"artifacts": [{"type": {"instanceSchema": "title: tfx.Model"}}]}},
            "parameters": {
                "push_destination": {"stringValue": '{"filesystem": {"base_directory": "/old"}}'},
                "serving_uri": {"stringValue": "/new"},
            },
        },
        "outputs": {"outputFile": "/output.json"},
    }
    completed = container_entrypoint.complete(json.dumps(invocation), None)
    assert completed["inputs"]["parameters"] == {
        "push_destination": {"stringValue": '{"filesystem": {"base_directory": "/new"}}'}
    }
    assert completed["inputs"]["artifacts"] == invocation["inputs"]["artifacts"]
    assert completed["outputs"] == invocation["outputs"]
