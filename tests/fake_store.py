"""An object store for tests, on the local disk."""

from pathlib import Path

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem


class FakeStore(LocalFileSystem):
    """An object store: fake://path is the file /path; folders are only prefixes of names."""

    @classmethod
    def scheme(cls):
        return "fake"

    def match(self, patterns, limits=None):
        results = super().match([_local(pattern) for pattern in patterns], limits)
        for result in results:
            result.metadata_list = [
                FileMetadata(f"fake:/{each.path}", each.size_in_bytes)
                for each in result.metadata_list
                if Path(each.path).is_file()
            ]
        return results

    def create(self, path, *arguments, **options):
        return super().create(_local(path), *arguments, **options)

    def open(self, path, *arguments, **options):
        return super().open(_local(path), *arguments, **options)

    def delete(self, paths):
        for path in paths:
            Path(_local(path)).unlink()


def _local(uri: str) -> str:
    return uri.removeprefix("fake:/")
