"""Parquet files from elsewhere are data, never code: pyarrow before 14.0.1 unpickles what they contain."""

import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# Each reader in a process of its own, since Apache Beam mends pyarrow for the whole process.
READERS = {
    "manifest": "from datasets import manifest; manifest.convert(path, path.parent / 'out')",
    "drift": "from serving.drift import samples; samples._read([path], ['label'])",
    "predictions": "from components.model_report import predictions; predictions.read(path)",
}


class _Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path):
        self._file = str(file)

    def __reduce__(self):
        return open, (self._file, "w")


@pytest.mark.parametrize("reader", READERS)
def test_code_in_a_parquet_file_is_not_run(tmp_path, reader):
    written = tmp_path / "written-by-the-code"
    extension = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(_Payload(written), 2),
    }
    schema = pa.schema([pa.field("file", pa.string(), metadata=extension), pa.field("label", pa.string())])
    table = pa.table([pa.array(["a.png", "b.png"]), pa.array(["x", "y"])], schema=schema)
    pq.write_table(table, tmp_path / "a.parquet")
    code = f"import pathlib; path = pathlib.Path('a.parquet').absolute(); {READERS[reader]}"
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not written.exists()
    expected = ("DatasetError: ", "DriftError: ", "ValueError: ")
    assert any(name in process.stderr for name in expected), process.stderr
