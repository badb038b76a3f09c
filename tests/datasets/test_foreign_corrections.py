"""Corrections files with any content: corrections, or an error that says what is wrong."""

import json

import hypothesis
from hypothesis import strategies as st

from datasets import corrections
from datasets.directory import DatasetError
from tests.fuzzing import VALUES, cases, changed_bytes, changed_values

WRITTEN = {
    "format": corrections.FORMAT,
    "corrections": [
        {"id": "train_00001", "split": "train", "action": "relabel", "label": "cat"},
        {"id": "test_00002", "split": "test", "action": "remove"},
        {"id": "val_00003", "split": "val", "action": "keep"},
    ],
}


@cases(few=200)
@hypothesis.given(
    content=st.one_of(
        changed_bytes(json.dumps(WRITTEN).encode()),
        changed_values(WRITTEN).map(lambda tree: json.dumps(tree).encode()),
        VALUES.map(lambda tree: json.dumps(tree).encode()),
        st.binary(max_size=50),
        st.just(b"[" * 100_000),
        st.just(b'{"a": ' * 50_000),
        st.just(b"1" * 10_000),
    )
)
def test_any_foreign_corrections_file_is_taken_or_explained(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "corrections.json"
    file.write_bytes(content)
    try:
        for correction in corrections.read([file]):
            assert correction.action in corrections.ACTIONS
    except DatasetError as error:
        assert str(file) in str(error)
