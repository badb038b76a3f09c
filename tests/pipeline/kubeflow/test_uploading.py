import shutil
import time
from pathlib import Path

import pytest

from datasets import digest, directory
from pipeline.kubeflow import uploading
from settings.base import ConfigError
from tests import launcher


@pytest.fixture(scope="module")
def s3():
    with launcher.store() as running:
        yield running


@pytest.fixture(scope="module")
def google(tmp_path_factory):
    with launcher.google_store(tmp_path_factory.mktemp("google")) as running:
        yield running


@pytest.fixture(params=["minio", "s3", "gs"])
def scheme(request):
    return request.param


@pytest.fixture
def store(scheme, s3, google, monkeypatch):
    """The store of a scheme, as a shell with credentials for it finds it."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    found = google if scheme == "gs" else s3
    for name, value in found.variables.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def uri(request, scheme):
    """A place of its own for each test."""
    name = request.node.originalname
    return f"{scheme}://{launcher.BUCKET}/{scheme}/{name}"


def _upload(data, uri, store):
    return uploading.upload(data, uri, None if uri.startswith("gs://") else store.endpoint)


def test_the_copy_is_the_same_dataset(tiny_dataset, uri, store, tmp_path):
    found = _upload(tiny_dataset.path, uri, store)
    store.download(uri, tmp_path / "copy")
    assert (tmp_path / "copy" / uploading.DIGEST_FILE).read_text() == f"{found}\n"
    assert digest.of_directory(tmp_path / "copy") == digest.of_directory(tiny_dataset.path) == found
    assert directory.read(tmp_path / "copy").class_names == tiny_dataset.class_names


def test_an_interrupted_upload_goes_on_and_is_marked_complete_at_its_end(
    tiny_dataset, uri, store, monkeypatch
):
    put = uploading._put
    calls = []

    def fails_at_the_third(files, source, target):
        calls.append(target)
        if len(calls) == 3:
            raise ConnectionError("the connection was lost")
        put(files, source, target)

    monkeypatch.setattr(uploading, "_put", fails_at_the_third)
    with pytest.raises(ConfigError, match=r"cannot upload to .*connection was lost.*goes on with"):
        _upload(tiny_dataset.path, uri, store)
    assert uploading.DIGEST_FILE not in store.list(uri)
    _upload(tiny_dataset.path, uri, store)
    assert uploading.DIGEST_FILE in store.list(uri)
    # The two files that had arrived are not uploaded again.
    assert len(calls) == 3 + 5 - 2
    _upload(tiny_dataset.path, uri, store)
    assert len(calls) == 3 + 5 - 2


def test_another_dataset_replaces_all_of_the_first(tiny_dataset, uri, store, tmp_path):
    first = tmp_path / "first"
    shutil.copytree(tiny_dataset.path, first)
    (shard,) = (first / "train").iterdir()
    shard.rename(first / "train" / "older.tfrecord")
    _upload(first, uri, store)
    _upload(tiny_dataset.path, uri, store)
    expected = {p.relative_to(tiny_dataset.path).as_posix() for p in digest.files(tiny_dataset.path)}
    assert set(store.list(uri)) == {*expected, uploading.DIGEST_FILE}


def test_a_repeated_upload_repairs_what_was_deleted_or_changed(tiny_dataset, uri, store, tmp_path):
    found = _upload(tiny_dataset.path, uri, store)
    (deleted,), (changed,) = (
        [name for name in store.list(uri) if name.startswith(split)] for split in ("val/", "test/")
    )
    content = (tiny_dataset.path / changed).read_bytes()
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed" / Path(changed).name).write_bytes(bytes(len(content)))
    store.upload(tmp_path / "changed", f"{uri}/test")
    store.remove(f"{uri}/{deleted}")
    assert _upload(tiny_dataset.path, uri, store) == found
    store.download(uri, tmp_path / "copy")
    assert digest.of_directory(tmp_path / "copy") == found


def test_files_in_train_of_a_place_without_a_dataset_are_kept(tiny_dataset, uri, store, tmp_path):
    (tmp_path / "notes" / "train").mkdir(parents=True)
    (tmp_path / "notes" / "train" / "mine.tfrecord").write_text("mine")
    store.upload(tmp_path / "notes", uri)
    with pytest.raises(ConfigError, match=r"expected an empty place .* found train/mine\.tfrecord"):
        _upload(tiny_dataset.path, uri, store)
    assert store.list(uri) == ["train/mine.tfrecord"]
    # Beside a dataset, only shards are replaced.
    (tmp_path / "notes" / "train" / "mine.tfrecord").rename(tmp_path / "notes" / "train" / "mine.txt")
    shutil.copy(tiny_dataset.path / directory.LABELS_FILE, tmp_path / "notes")
    store.upload(tmp_path / "notes", f"{uri}-2")
    with pytest.raises(ConfigError, match=r"found train/mine\.txt"):
        _upload(tiny_dataset.path, f"{uri}-2", store)
    assert set(store.list(f"{uri}-2")) == {directory.LABELS_FILE, "train/mine.txt"}


@pytest.mark.parametrize("scheme", ["minio"])
def test_a_marker_of_a_folder_is_named(tiny_dataset, uri, store):
    store.mark_folder(uri)
    with pytest.raises(ConfigError, match=r"an object 'minio/test_a_.*named/' without content .* delete it"):
        _upload(tiny_dataset.path, uri, store)


def test_the_size_of_an_object_of_several_parts_counts_only_at_a_marked_place(tmp_path):
    (tmp_path / "shard").write_bytes(b"abc")
    for etag in ('"900150983cd24fb0d6963f7d28e17f72-2"', ""):
        info = {"size": 3, "ETag": etag}
        assert uploading._is_uploaded(info, tmp_path / "shard", if_unknown=True)
        assert not uploading._is_uploaded(info, tmp_path / "shard", if_unknown=False)
        assert not uploading._is_uploaded({**info, "size": 4}, tmp_path / "shard", if_unknown=True)
    known = {"size": 3, "ETag": '"900150983cd24fb0d6963f7d28e17f72"'}  # the MD5 of abc
    assert uploading._is_uploaded(known, tmp_path / "shard", if_unknown=False)
    (tmp_path / "shard").write_bytes(b"abd")
    assert not uploading._is_uploaded(known, tmp_path / "shard", if_unknown=True)


def test_a_place_with_other_files_is_refused(tiny_dataset, uri, store, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    store.upload(tmp_path / "notes", uri)
    with pytest.raises(ConfigError, match=r"expected an empty place .* found thesis\.txt"):
        _upload(tiny_dataset.path, uri, store)
    assert store.list(uri) == ["thesis.txt"]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/mnt/data", "expected minio://, s3:// or gs:// with a bucket, found /mnt/data"),
        ("minio://", "expected minio://BUCKET/..., whose bucket is missing; found minio://"),
        ("minio:///x", "expected minio://BUCKET/..., whose bucket is missing; found minio:///x"),
        ("minio://mlpipeline", "expected a folder in the bucket, such as minio://mlpipeline/data"),
        ("s3://b/a/../c", "expected a place without empty folders"),
        ("ftp://a/b", "expected minio://, s3:// or gs:// with a bucket, found ftp://a/b"),
        ("minio://mlpipeline/x", "--endpoint is missing: .*svc/seaweedfs 9000.* or svc/minio-service"),
    ],
)
def test_unusable_places_are_refused(tiny_dataset, uri, expected, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(ConfigError, match=expected):
        uploading.upload(tiny_dataset.path, uri, None)


def test_an_address_that_would_not_be_used_is_refused(tiny_dataset):
    with pytest.raises(ConfigError, match="--endpoint: gs:// has one address, that of Google; leave it out"):
        uploading.upload(tiny_dataset.path, "gs://mlpipeline/x", "http://127.0.0.1:9")


def test_an_address_without_a_store_is_reported(tiny_dataset):
    with pytest.raises(ConfigError, match=r"cannot upload to minio://.*AWS_ACCESS_KEY_ID"):
        uploading.upload(tiny_dataset.path, "minio://mlpipeline/x", "http://127.0.0.1:9")


def test_a_machine_without_a_network_does_not_wait_long(tiny_dataset, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"cannot upload to gs://b/x: .*gcloud auth"):
        uploading.upload(tiny_dataset.path, "gs://b/x", None)
    assert time.monotonic() - start < 15  # 33 s with the client's own number of tries
