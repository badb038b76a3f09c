"""Measures the memory that this machine, or the container that this process runs in, can still give.

Only the standard library is imported, so that `pipeline.doctor` works where packages are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNIFIED = "cgroup.controllers"  # file that only the root of cgroup version 2 has


@dataclass(frozen=True)
class Memory:
    """The memory of this machine or, if its limit is what runs out first, of this container.

    Swap space does not count: a training that swaps does not end in a useful time.

    Attributes:
      total: bytes of physical memory, or the limit of the container.
      available: bytes that can be allocated now without swapping; caches of files, which the system gives
        up when memory is needed, count as available.
      is_limited: whether the two are those of a container (a cgroup), not of the whole machine.
    """

    total: int
    available: int
    is_limited: bool = False


def memory(root: Path = Path("/")) -> Memory | None:
    """Measures the memory that is there.

    Args:
      root: folder with `proc` and `sys`; tests pass another one than the real root.

    Returns:
      The memory of the machine or of one of the cgroups around this process, whichever has the least
      available; None on systems without `/proc/meminfo`, where it cannot be measured.
    """
    try:
        text = (root / "proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    machine = Memory(int(kilobytes["MemTotal"]) * 1024, int(kilobytes["MemAvailable"]) * 1024)
    limited = [group for group in _cgroups(root) if group.total < machine.total]
    return min([machine, *limited], key=lambda each: each.available)


def _cgroups(root: Path) -> Iterator[Memory]:
    """Yields the memory of each cgroup around this process that has a limit."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" and (mount / _UNIFIED).exists():
            yield from _limits(mount, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            yield from _limits(
                mount / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
            )


def _limits(top: Path, path: str, limit_file: str, usage_file: str, prefix: str) -> Iterator[Memory]:
    # Each cgroup is limited by those above it, too. Without a namespace of its own, a container sees its
    # path on the host, which does not exist in it: its own cgroup is then mounted at the top.
    folder = top / path.strip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(top):
            return
        try:
            limit = (group / limit_file).read_text(encoding="utf-8").strip()
            usage = int((group / usage_file).read_text(encoding="utf-8"))
            statistics = dict(
                line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines()
            )
        except OSError:
            continue  # the root of all cgroups has no limit, and no such files
        if limit.isdigit():  # otherwise `max`
            cached = sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
            yield Memory(int(limit), max(0, int(limit) - usage + cached), is_limited=True)


def has_gpu(root: Path = Path("/")) -> bool:
    """Returns whether there is a GPU of NVIDIA with its driver."""
    return (root / "dev/nvidia0").exists()


def is_in_memory(folder: Path, root: Path = Path("/")) -> bool:
    """Returns whether an existing folder is on a file system in memory (tmpfs), as `/tmp` often is."""
    try:
        lines = (root / "proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    kinds = {Path(fields[1]): fields[2] for line in lines if len(fields := line.split()) > 2}
    folder = folder.resolve()
    return next((kinds[path] for path in (folder, *folder.parents) if path in kinds), "") == "tmpfs"
