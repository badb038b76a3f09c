"""Tests how much memory is found, with the files of Linux in a folder of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import machine
from pipeline.machine import Memory

GIB = 2**30


@pytest.fixture
def system(tmp_path):
    """Writes files of a system with 16 GiB, of which 10 are available, and returns its root."""

    def write(cgroup: str, **files: str) -> Path:
        contents = {
            "proc/meminfo": f"MemTotal:       {16 * 2**20} kB\nMemFree:         1 kB\n"
            f"MemAvailable:   {10 * 2**20} kB\n",
            "proc/self/cgroup": cgroup,
            **files,
        }
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def group(folder, limit, usage, stat="", version=2):
    """The files of one cgroup; `usage` in bytes."""
    names = {2: ("memory.max", "memory.current"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes")}
    limit_name, usage_name = names[version]
    return {
        f"sys/fs/cgroup/{folder}/{limit_name}": f"{limit}\n",
        f"sys/fs/cgroup/{folder}/{usage_name}": f"{usage}\n",
        f"sys/fs/cgroup/{folder}/memory.stat": stat,
    }


def test_machine_without_limits(system):
    assert machine.memory(system("0::/\n")) == Memory(16 * GIB, 10 * GIB)


def test_system_without_proc(tmp_path):
    assert machine.memory(tmp_path) is None


def test_this_machine():
    found = machine.memory()
    assert found is not None
    assert 0 < found.available <= found.total


@pytest.mark.parametrize("folder", [".", "a/b"])
def test_limit_of_a_container_with_cgroup_2(system, folder):
    stat = f"anon {GIB}\nfile {GIB}\ninactive_file {GIB // 2}\nactive_file {GIB // 4}\n"
    path = "/" if folder == "." else f"/{folder}"
    root = system(
        f"0::{path}\n",
        **{"sys/fs/cgroup/cgroup.controllers": "memory\n"},
        **group(folder, 4 * GIB, 2 * GIB, stat),
    )
    # Half and a quarter of a GiB of the usage are caches of files, which can be given up.
    assert machine.memory(root) == Memory(4 * GIB, 2 * GIB + GIB * 3 // 4, is_limited=True)


def test_the_tightest_of_nested_cgroups_counts(system):
    root = system(
        "0::/outer/inner\n",
        **{"sys/fs/cgroup/cgroup.controllers": "memory\n"},
        **group("outer", 3 * GIB, 2 * GIB),
        **group("outer/inner", "max", GIB),
    )
    assert machine.memory(root) == Memory(3 * GIB, GIB, is_limited=True)


@pytest.mark.parametrize("folder", ["memory/docker/1", "memory"])  # seen from the host, and from inside
def test_limit_of_a_container_with_cgroup_1(system, folder):
    stat = f"inactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file 0\n"
    root = system(
        "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/\n",
        **group(folder, 8 * GIB, 5 * GIB, stat, version=1),
    )
    assert machine.memory(root) == Memory(8 * GIB, 4 * GIB, is_limited=True)


def test_a_cgroup_without_limit_does_not_count(system):
    root = system("4:memory:/\n", **group("memory", 2**63 - 4096, 5 * GIB, version=1))
    assert machine.memory(root) == Memory(16 * GIB, 10 * GIB)


def test_a_machine_with_less_than_its_container(system):
    root = system("4:memory:/\n", **group("memory", 12 * GIB, GIB, version=1))
    assert machine.memory(root) == Memory(16 * GIB, 10 * GIB)


def test_gpu(tmp_path):
    assert not machine.has_gpu(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert machine.has_gpu(tmp_path)


def test_file_systems_in_memory(system, tmp_path):
    root = system("", **{"proc/mounts": f"disk / ext4 rw 0 0\ntmpfs {tmp_path}/t tmpfs rw 0 0\n"})
    (tmp_path / "t" / "below").mkdir(parents=True)
    assert machine.is_in_memory(tmp_path / "t" / "below", root)
    assert not machine.is_in_memory(tmp_path, root)
