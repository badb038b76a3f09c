import gzip
import hashlib
import io
import re
import tarfile
import threading
import time
import tracemalloc
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import PIL.Image
import pytest

from datasets import cifar10
from datasets.directory import DatasetError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-bin"


def _batch(seed: int, count: int = 20) -> bytes:
    records = np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(count) % 10
    return records.tobytes()


def _files() -> dict[str, bytes]:
    files = {f"{FOLDER}/data_batch_{number}.bin": _batch(number) for number in range(1, 6)}
    files[f"{FOLDER}/test_batch.bin"] = _batch(6)
    files[f"{FOLDER}/batches.meta.txt"] = "\n".join([*NAMES, "", ""]).encode()
    files[f"{FOLDER}/readme.html"] = b"<html>"
    return files


def _archive(path, files, links=()):
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo(FOLDER)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


@pytest.fixture
def archive(tmp_path):
    return _archive(tmp_path / "cifar.tar.gz", _files().items())


def _convert(archive, out, **kwargs):
    return cifar10.convert(archive, out, md5=None, **kwargs)


def test_every_pixel_and_label_is_converted(archive, tmp_path, read_split):
    dataset = _convert(archive, tmp_path / "data")
    assert dataset.class_names == NAMES
    assert dataset.image_size == (32, 32)
    train, val, test = (read_split(dataset.path, split) for split in ("train", "val", "test"))
    assert not train.keys() & val.keys()
    assert (train | val).keys() == {f"train_{index:05d}" for index in range(100)}
    for index in range(100):
        image, label = (train | val)[f"train_{index:05d}"]
        _check(image, label, _batch(1 + index // 20), index % 20)
    assert test.keys() == {f"test_{index:05d}" for index in range(20)}
    for index in range(20):
        _check(*test[f"test_{index:05d}"], _batch(6), index)


def _check(png: bytes, label: int, batch: bytes, number: int) -> None:
    record = np.frombuffer(batch, np.uint8)[number * 3073 : (number + 1) * 3073]
    assert label == record[0]
    with PIL.Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), record[1:].reshape(3, 32, 32).transpose(1, 2, 0))


def test_val_has_the_same_fraction_of_every_class(archive, tmp_path, read_split):
    _convert(archive, tmp_path / "data", val_fraction=0.2)
    val = read_split(tmp_path / "data", "val")
    assert Counter(label for _, label in val.values()) == dict.fromkeys(range(10), 2)


def test_per_class_limits_train_and_val_together(archive, tmp_path, read_split):
    _convert(archive, tmp_path / "data", per_class=5, val_fraction=0.2)
    train, val, test = (read_split(tmp_path / "data", split) for split in ("train", "val", "test"))
    for split, count in ((train, 4), (val, 1), (test, 2)):
        assert Counter(label for _, label in split.values()) == dict.fromkeys(range(10), count)
    assert not train.keys() & val.keys()


def test_the_same_seed_gives_the_same_bytes(archive, tmp_path, contents):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        _convert(archive, tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_the_order_of_files_in_the_archive_does_not_matter(archive, tmp_path, read_split):
    other = _archive(tmp_path / "other.tar.gz", reversed(_files().items()))
    _convert(archive, tmp_path / "a")
    _convert(other, tmp_path / "b")
    for split in ("train", "val", "test"):
        assert read_split(tmp_path / "a", split) == read_split(tmp_path / "b", split)


def test_another_checksum_is_an_error_unless_it_is_passed(archive, tmp_path):
    found = hashlib.md5(archive.read_bytes()).hexdigest()
    with pytest.raises(DatasetError, match=f"expected the MD5 {cifar10.MD5}, found {found}.*--md5 {found}"):
        cifar10.convert(archive, tmp_path / "data")
    cifar10.convert(archive, tmp_path / "data", md5=found.upper())


def test_a_missing_archive_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read the archive .*none\.tar\.gz: No such file"):
        cifar10.convert(tmp_path / "none.tar.gz", tmp_path / "data")


@pytest.mark.parametrize("part", [0.002, 0.3, 0.9])
def test_truncated_gzip(archive, tmp_path, part):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(part * len(data))])
    with pytest.raises(DatasetError, match=r"incomplete or not a \.tar\.gz archive"):
        _convert(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("part", [0.001, 0.3, 0.9])
def test_truncated_tar(archive, tmp_path, part):
    data = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(data[: int(part * len(data))]))
    with pytest.raises(DatasetError, match=r"is incomplete|files are missing"):
        _convert(archive, tmp_path / "data")


def test_a_file_that_is_not_gzip_is_an_error(archive, tmp_path):
    archive.write_bytes(b"<html>please log in</html>")
    with pytest.raises(DatasetError, match=r"not a \.tar\.gz archive"):
        _convert(archive, tmp_path / "data")


@pytest.mark.parametrize("change", [-1, 1, -3073 * 20])
def test_records_have_to_be_whole(tmp_path, change):
    files = _files()
    name = f"{FOLDER}/data_batch_3.bin"
    files[name] = files[name][:change] if change < 0 else files[name] + bytes(change)
    archive = _archive(tmp_path / "a.tar.gz", files.items())
    with pytest.raises(DatasetError, match=r"data_batch_3\.bin to hold whole records of 3073 bytes, found"):
        _convert(archive, tmp_path / "data")


def test_a_label_out_of_range_is_an_error(tmp_path):
    files = _files()
    batch = bytearray(files[f"{FOLDER}/data_batch_2.bin"])
    batch[3073 * 7] = 10
    files[f"{FOLDER}/data_batch_2.bin"] = bytes(batch)
    archive = _archive(tmp_path / "a.tar.gz", files.items())
    with pytest.raises(
        DatasetError, match=r"data_batch_2\.bin: expected labels from 0 to 9, found 10 in record 7"
    ):
        _convert(archive, tmp_path / "data")


@pytest.mark.parametrize("missing", ["data_batch_5.bin", "test_batch.bin", "batches.meta.txt"])
def test_a_missing_member_is_an_error(tmp_path, missing):
    files = _files()
    del files[f"{FOLDER}/{missing}"]
    archive = _archive(tmp_path / "a.tar.gz", files.items())
    with pytest.raises(DatasetError, match=f"these files are missing: {FOLDER}/{missing}"):
        _convert(archive, tmp_path / "data")


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", f"{FOLDER}/../../outside"])
def test_a_member_outside_the_folder_is_an_error(tmp_path, name):
    archive = _archive(tmp_path / "a.tar.gz", [*_files().items(), (name, b"x")])
    with pytest.raises(DatasetError, match="Do not use this archive"):
        _convert(archive, tmp_path / "data")
    assert {p.name for p in tmp_path.iterdir()} == {"a.tar.gz"}


def test_a_symbolic_link_is_an_error(tmp_path):
    archive = _archive(tmp_path / "a.tar.gz", _files().items(), [(f"{FOLDER}/extra.bin", "/etc/passwd")])
    with pytest.raises(DatasetError, match=r"found '.*extra\.bin', which is a link"):
        _convert(archive, tmp_path / "data")


def test_a_repeated_member_is_an_error(tmp_path):
    archive = _archive(tmp_path / "a.tar.gz", [*_files().items(), (f"{FOLDER}/test_batch.bin", _batch(7))])
    with pytest.raises(DatasetError, match="once, found it twice"):
        _convert(archive, tmp_path / "data")


class _Zeros:
    """A file of zeros of any size, which takes no memory."""

    def read(self, size):
        return bytes(size)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_members_of_any_size_are_not_read_into_memory(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(cifar10, "_MAX_UNPACKED_BYTES", 2**20)
    size = 5 * 2**30 if kind == tarfile.REGTYPE else 50 * 2**20
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo(f"{FOLDER}/batches.meta.txt")
        info.type, info.size = kind, size
        if kind == tarfile.REGTYPE:
            # Only the start of a large member is written: the check comes before the content is read.
            tar.fileobj.write(info.tobuf() + bytes(2**20))
        else:
            tar.addfile(info, _Zeros())
    tracemalloc.start()
    with pytest.raises(DatasetError, match="Do not use this archive"):
        _convert(tmp_path / "a.tar.gz", tmp_path / "data")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_the_command_ends_with_the_summary(archive, tmp_path, capsys):
    cifar10.prepare(tmp_path / "data", archive=archive, md5=hashlib.md5(archive.read_bytes()).hexdigest())
    out = capsys.readouterr().out
    assert re.search(r"airplane +9 +1 +2 +12\s", out)
    assert re.search(r"all +90 +10 +20 +120\s", out)
    assert re.search(r"formats +120 PNG", out)
    assert "all 32x32 pixels" in out


@pytest.fixture
def server(archive, monkeypatch):
    """Serves the archive on this machine.

    The class attributes control the server: the next `interruptions` responses end after half of the
    archive, and with `wrong` it sends zeros. `requests` counts the requests.
    """

    class Handler(BaseHTTPRequestHandler):
        requests = 0
        interruptions = 0
        wrong = False

        def do_GET(self):
            Handler.requests += 1
            data = archive.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if Handler.interruptions > 0:
                Handler.interruptions -= 1
                data = data[: len(data) // 2]
            self.wfile.write(bytes(len(data)) if Handler.wrong else data)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setattr(cifar10, "URL", f"http://127.0.0.1:{http.server_port}/cifar.tar.gz")
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    yield Handler
    http.shutdown()
    http.server_close()


def test_an_interrupted_download_is_repeated_and_cached(server, archive, tmp_path, capsys):
    server.interruptions = 1
    cache = tmp_path / "cache"
    found = cifar10.download(cache)
    assert found.read_bytes() == archive.read_bytes()
    assert server.requests == 2
    assert "downloading it again" in capsys.readouterr().err
    assert cifar10.download(cache) == found
    assert server.requests == 2
    assert list(cache.iterdir()) == [found]


def test_a_damaged_download_is_replaced(server, archive, tmp_path):
    found = cifar10.download(tmp_path / "cache")
    found.write_bytes(found.read_bytes()[:1000])
    assert cifar10.download(tmp_path / "cache").read_bytes() == archive.read_bytes()
    assert server.requests == 2


def test_a_wrong_file_is_an_error_after_three_attempts(server, tmp_path):
    server.wrong = True
    with pytest.raises(cifar10.DownloadError, match="not the archive with the MD5"):
        cifar10.download(tmp_path / "cache")
    assert server.requests == 3
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_an_error(server, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(cifar10.DownloadError, match="cannot store the download in"):
        cifar10.download(tmp_path / "cache")


def test_without_a_server_the_error_comes_soon_and_suggests_alternatives(server, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar.tar.gz")
    started = time.monotonic()
    with pytest.raises(cifar10.DownloadError, match=r"--archive FILE.*--data shapes"):
        cifar10.download(tmp_path / "cache")
    assert time.monotonic() - started < 5
