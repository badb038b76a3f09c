"""Runs a function in a child process and injects a fault at one of its durable writes.

The child installs a seccomp filter with user notification (Linux 5.5 or newer; no root is needed): the kernel
then holds every system call that changes files until this process has answered. So all writers are covered,
Python's as well as TensorFlow's and SQLite's in C++, and those of processes that the child starts. Patches of
Python's functions would miss the latter, and strace counts the calls of each thread on its own, so that the
n-th call of a program with many threads is not the same twice.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import os
import re
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

KILL, NO_SPACE, IO_ERROR = "kill", "ENOSPC", "EIO"
FAULTS = (KILL, NO_SPACE, IO_ERROR)

# Number of each system call on x86-64 -> its name, and what its arguments say of the file: ("path", i) is a
# path, ("at", i) a folder's descriptor and a path, ("fd", i) a descriptor.
_CALLS: dict[int, tuple[str, tuple[str, int]]] = {
    1: ("write", ("fd", 0)),
    18: ("write", ("fd", 0)),  # pwrite64
    20: ("write", ("fd", 0)),  # writev
    296: ("write", ("fd", 0)),  # pwritev
    40: ("write", ("fd", 0)),  # sendfile, by which shutil copies
    326: ("write", ("fd", 2)),  # copy_file_range
    285: ("write", ("fd", 0)),  # fallocate
    2: ("open", ("path", 0)),
    85: ("open", ("path", 0)),  # creat
    257: ("open", ("at", 0)),  # openat
    74: ("fsync", ("fd", 0)),
    75: ("fsync", ("fd", 0)),  # fdatasync
    76: ("truncate", ("path", 0)),
    77: ("truncate", ("fd", 0)),
    82: ("rename", ("path", 1)),
    264: ("rename", ("at", 2)),
    316: ("rename", ("at", 2)),  # renameat2
    83: ("mkdir", ("path", 0)),
    258: ("mkdir", ("at", 0)),
    84: ("rmdir", ("path", 0)),
    87: ("unlink", ("path", 0)),
    263: ("unlink", ("at", 0)),
    86: ("link", ("path", 1)),
    265: ("link", ("at", 2)),
    88: ("link", ("path", 1)),  # symlink
    266: ("link", ("at", 1)),  # symlinkat
}
# Of these, only calls that may write are reported; the number is that of the argument with the flags.
_OPENS = {2: 1, 257: 2}
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# What needs room on the disk.
_NEEDS_SPACE = {"write", "open", "fsync", "truncate", "rename", "mkdir", "link"}

_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER = 317, 1, 8
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_ALLOW, _USER_NOTIF = 0x7FFF0000, 0x7FC00000
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=Qqii")
# Name of the file of four bytes by which Python finds out whether it can write to TMPDIR. If Python is killed
# before it has removed the file, nothing tells it from those of other programs.
PROBE = r"[a-z0-9_]{8}"
_ANY = "*"  # in names, for parts that are made at random
_AT_FDCWD = 0xFFFFFF9C


class UnavailableError(OSError):
    """The kernel, or the sandbox around this process, does not report system calls."""


@dataclass(frozen=True)
class Point:
    """A durable write.

    Attributes:
      stage: what the program was doing, such as the running component; empty if the program has no stages.
      call: what was about to happen: `open`, `write`, `fsync`, `rename`, ...
      place: the file, relative to the watched folder; varying parts of its name are replaced.
      count: how many times the same had happened at this place before.
    """

    stage: str
    call: str
    place: str
    count: int

    def __str__(self) -> str:
        return f"{self.stage or '-'} {self.call} {self.place} #{self.count}"


@dataclass
class Outcome:
    """How a child process has ended.

    Attributes:
      status: its exit status; negative for a signal.
      points: its durable writes, in their order.
      hit: whether the fault was injected.
      seconds: its duration.
    """

    status: int = 0
    points: list[Point] = field(default_factory=list)
    hit: bool = False
    seconds: float = 0.0


def run(
    function: Callable[[], None],
    watched: Path,
    output: Path,
    at: Point | None = None,
    fault: str = "",
    stage: Callable[[], str] = str,
    on_point: Callable[[Point], None] | None = None,
) -> Outcome:
    """Runs a function in a child process, and lists or disturbs its durable writes.

    Args:
      function: what the child calls; its process ends with the status of a SystemExit, 0 without one, and 1
        with a traceback after any other exception.
      watched: the folder whose writes count.
      output: file for stdout and stderr of the child; writes to it do not count.
      at: where the fault is injected; None disturbs nothing.
      fault: `kill` ends the child and its processes before the write; `EIO` lets this call fail; `ENOSPC`
        lets this and all later calls that need room fail, as on a disk that stays full.
      stage: returns what the child is doing, for `Point.stage`.
      on_point: is called before each write while the child waits.

    Returns:
      How the child has ended.

    Raises:
      UnavailableError: the kernel cannot report the child's system calls.
    """
    start = time.monotonic()
    ours, theirs = socket.socketpair()
    gc.freeze()  # so that the child does not collect, and so copy, this process's memory
    child = os.fork()
    if child == 0:
        ours.close()
        _be_child(function, output, theirs)
    gc.unfreeze()
    theirs.close()
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        os.waitpid(child, 0)
        raise UnavailableError(output.read_text())
    (listener,) = descriptors
    outcome = Outcome()
    observer = _Observer(watched, output, at, fault, stage, on_point, outcome, child)
    ended = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(ended, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if ready.get(listener, 0) & select.POLLIN:
                observer.answer(listener)
            elif ended in ready:
                break
    finally:
        _kill_group(child)  # processes that the child has left
        _, status = os.waitpid(child, 0)
        outcome.status = os.waitstatus_to_exitcode(status)
        for descriptor in (listener, ended):
            os.close(descriptor)
        ours.close()
    outcome.seconds = time.monotonic() - start
    return outcome


class _Observer:
    """Answers the kernel's questions about one child."""

    def __init__(
        self,
        watched: Path,
        output: Path,
        at: Point | None,
        fault: str,
        stage: Callable[[], str],
        on_point: Callable[[Point], None] | None,
        outcome: Outcome,
        child: int,
    ) -> None:
        self._watched, self._output = str(watched), str(output)
        self._at, self._fault, self._stage, self._on_point = at, fault, stage, on_point
        self._outcome, self._child = outcome, child
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._writes: Counter[str] = Counter()

    def answer(self, listener: int) -> None:
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # the caller has ended, or was interrupted
                return
            raise
        number, pid, _, call, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        code = self._decide(pid, call, arguments)
        if code is None:
            return
        response = _RESPONSE.pack(number, 0, -code, 0 if code else _CONTINUE)
        try:
            fcntl.ioctl(listener, _SEND, bytearray(response))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def _decide(self, pid: int, number: int, arguments: Sequence[int]) -> int | None:
        """Returns the error that a call gets, 0 to let it proceed, or None if the child was killed."""
        call, (kind, index) = _CALLS[number]
        path = _path(pid, kind, arguments, index)
        inside = path.startswith(self._watched + "/") and not path.startswith(self._output)
        if not inside:
            return 0
        if self._outcome.hit:
            full = self._fault == NO_SPACE and call in _NEEDS_SPACE
            return errno.ENOSPC if full else 0
        point = self._note(call, path) if self._is_point(call, path) else None
        if point is None or point != self._at:
            return 0
        self._outcome.hit = True
        if self._fault == KILL:
            _kill_group(self._child)
            return None
        return errno.ENOSPC if self._fault == NO_SPACE else errno.EIO

    def _note(self, call: str, path: str) -> Point | None:
        """Notes a point and returns it; None for most of many temporary files of a kind."""
        key = (self._stage(), call, normalize(path[len(self._watched) + 1 :]))
        point = Point(*key, self._counts[key])
        self._counts[key] += 1
        if _ANY in point.place and not _is_power_of_two(self._counts[key]):
            return None
        self._outcome.points.append(point)
        if self._on_point:
            self._on_point(point)
        return point

    def _is_point(self, call: str, path: str) -> bool:
        """Tells whether a call may count: of many writes to a file the 1st, 2nd, 4th, 8th and so on.

        Of SQLite's writes, only those count that begin and commit a transaction: its journal is created, and
        removed, and the database is synced in between. What it writes between them is not valid before.
        """
        is_database = "sqlite" in path
        if call == "open":
            self._writes[path] = 0
        if call == "write":
            self._writes[path] += 1
            # How many lines a log gets differs from run to run.
            counts = _is_power_of_two(self._writes[path])
            return counts and not is_database and "/logs/" not in path
        return not (is_database and (call == "truncate" or (call == "fsync" and path.endswith("-journal"))))


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def normalize(place: str) -> str:
    """Replaces what differs from run to run in a path: numbers, and the random parts of temporary names."""
    place = re.sub(rf"^(tmp/(pipeline-\w+/)?){PROBE}$", rf"\1{_ANY}", place)
    random = r"(partial-|pipeline-|tmp|temp[-_]?|_generated_file)[a-z0-9_]{6,}"
    place = re.sub(random, rf"\1{_ANY}", place)
    place = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", _ANY, place)
    place = re.sub(r"(?<=[/_.-])(?=[0-9a-f]*\d)[0-9a-f]{12,}(-[0-9a-f]+)*", _ANY, place)
    return re.sub(r"\d+", "#", place)


def _path(pid: int, kind: str, arguments: Sequence[int], index: int) -> str:
    try:
        if kind == "fd":
            return str(Path(f"/proc/{pid}/fd/{arguments[index] & 0xFFFFFFFF}").readlink())
        folder = f"/proc/{pid}/cwd"
        if kind == "at":
            descriptor = arguments[index] & 0xFFFFFFFF
            folder = folder if descriptor == _AT_FDCWD else f"/proc/{pid}/fd/{descriptor}"
            index += 1
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
            memory.seek(arguments[index])
            # Up to the end of the page, since the next one may not exist.
            content = memory.read(4096 - arguments[index] % 4096)
            if b"\0" not in content:
                content += memory.read(4096)
            path = os.fsdecode(content.partition(b"\0")[0])
        return os.path.normpath(path if path.startswith("/") else Path(folder).readlink() / path)
    except OSError:
        return ""  # the caller has ended


def _be_child(function: Callable[[], None], output: Path, channel: socket.socket) -> NoReturn:
    """Calls the function under the filter, and ends the process."""
    status = 1
    try:
        os.setsid()
        # If this process's parent is killed, nobody answers its calls any more.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.close(log)
        # pytest has replaced these two.
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        listener = _install_filter()
        socket.send_fds(channel, [b"x"], [listener])
        channel.close()
        os.close(listener)
        function()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()  # temporary folders that only a finalizer removes
        os._exit(status)


def _install_filter() -> int:
    """Makes the kernel report this process's calls, and returns the descriptor on which it does."""
    reported = sorted(set(_CALLS) - set(_OPENS))
    # Each instruction: code, jump if true, jump if false, constant. Jumps are relative to the next one.
    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    program = [(load, 0, 0, 0)]  # the number of the call
    checks: list[tuple[int, int, int, int]] = []
    for number, flags in _OPENS.items():
        checks += [
            (equal, 0, 3, number),
            (load, 0, 0, 16 + 8 * flags),
            (any_bit, 0, 1, _WRITE_FLAGS),
            (answer, 0, 0, _USER_NOTIF),
            (load, 0, 0, 0),
        ]
    for number in reported:
        checks += [(equal, 0, 1, number), (answer, 0, 0, _USER_NOTIF)]
    program += [*checks, (answer, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HxxxxxxQ", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.c_char_p(header))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp: the kernel cannot report system calls")
    return int(listener)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(leader, signal.SIGKILL)
    except PermissionError:
        pass
