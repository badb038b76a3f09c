"""Compiled files with any content: a request to the back end, or an error that says what is wrong."""

import json

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from pipeline.kubeflow import submission
from settings import loading
from settings.base import ConfigError
from tests.fuzzing import cases, changed_bytes, changed_values

SETTINGS = [
    loading.load(overrides=overrides, on_base=True)
    for overrides in (
        [],
        ["trainer.epochs=3", "root=gs://other/runs"],
        ["kubeflow.data_uri=gs://other/data", "kubeflow.cache=false"],
    )
]


def _read(file, target, settings):
    try:
        request = submission.read(file, target, settings)
        assert request.steps and isinstance(request.name, str) and isinstance(request.root, str)
        submission.check_places(request, target, settings)
    except ConfigError as error:
        assert any(each in str(error) for each in (str(file), "--set", "trainer.", "root: "))


@pytest.mark.parametrize("target", ["vertex", "kfp"])
@cases(few=12)
@hypothesis.given(data=st.data())
def test_any_foreign_compiled_file_is_taken_or_explained(compiled_files, tmp_path, target, data):
    text = compiled_files[f"{target}-no-tune"].read_text()
    # JSON is YAML, and is written much faster.
    tree = json.loads(text) if target == "vertex" else next(iter(yaml.safe_load_all(text)))
    file = tmp_path / "pipeline"
    settings = data.draw(st.sampled_from(SETTINGS))
    if data.draw(st.booleans()):
        # Of the file's beginning, since YAML is read slowly.
        file.write_bytes(data.draw(changed_bytes(text.encode()[:3000])))
    else:
        file.write_text(json.dumps(data.draw(changed_values(tree))))
    _read(file, target, settings)
