import io
import json

import numpy as np
import pytest
from PIL import Image

from datasets import corrections, deduplication, directory


def _png(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path, *examples):
    """Writes (split, label, id, seed of image), and one clean image of each split and class."""
    clean = [
        (split, label, f"{split}-{label}", 100 + 2 * index + label)
        for index, split in enumerate(directory.SPLITS)
        for label in (0, 1)
    ]
    with directory.create(path, ["cat", "dog"], dict.fromkeys(directory.SPLITS, 1000), seed=0) as writer:
        for split, label, name, seed in (*clean, *examples):
            writer.add(split, image=_png(seed), label=label, id=name.encode())
    return path


def test_the_corrections_remove_leaks_and_contradictions(tmp_path):
    data = _write(
        tmp_path / "data",
        *(("test", 0, "a", 1), ("train", 0, "b", 1), ("val", 0, "c", 1)),
        *(("val", 1, "d", 2), ("train", 1, "e", 2)),
        *(("train", 0, "f", 3), ("train", 1, "g", 3), ("test", 1, "h", 3)),
        *(("train", 0, "i", 4), ("train", 0, "j", 4)),
    )
    deduplication.prepare(data, tmp_path / "corrections.json")
    content = json.loads((tmp_path / "corrections.json").read_text())
    assert {entry["id"] for entry in content["corrections"]} == {"b", "c", "e", "f", "g", "h"}
    given = corrections.read([tmp_path / "corrections.json"])
    _, changes = corrections.apply(data, given, tmp_path / "out")
    assert changes.removed == 6
    cleaned = deduplication.find(tmp_path / "out")
    assert not cleaned.leaked and not cleaned.contradictions
    assert cleaned.repeated == 1
    with pytest.raises(directory.DatasetError, match="exists"):
        deduplication.prepare(data, tmp_path / "corrections.json")


def test_nothing_is_written_for_clean_data(tmp_path, capsys):
    deduplication.prepare(_write(tmp_path / "data"), tmp_path / "corrections.json")
    assert not (tmp_path / "corrections.json").exists()
    assert "no image is in several splits" in "".join(capsys.readouterr())
