import shutil

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
        ("minio://", "with a bucket"),
        ("ftp://a/b", "expected minio://, s3:// or gs://, found ftp://a/b"),
        ("minio://mlpipeline/x", "--endpoint is missing"),
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
