"""The calls of Linux that Python 3.11 has no name for, and the process tree below this one. Used by wrapper and pre-loaded process.

`timerfd` on CLOCK_BOOTTIME and not `poll`'s own time-out: a machine that was suspended wakes its wrappers at once, so a lease that ran out
meanwhile ends its command then and not after the rest of a wait.
"""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_CLOCK_BOOTTIME, _TFD_CLOEXEC_NONBLOCK, _TFD_TIMER_ABSTIME = 7, 0o2000000 | 0o4000, 1

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_timerfd_settime = _libc.timerfd_settime
_Timespecs = ctypes.c_long * 4  # struct itimerspec: interval s, ns, value s, ns


def _check(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


def die_with_parent(signal_number: int) -> None:
    """This process gets the signal when its parent dies. Survives exec, not fork."""
    _check(_prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def become_subreaper() -> None:
    """Orphans below this process become its children, also those that made a session of their own."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def name_process(name: str) -> None:
    """What `ps` shows as the command's short name; at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0)


def make_timer() -> int:
    return _check(_libc.timerfd_create(_CLOCK_BOOTTIME, _TFD_CLOEXEC_NONBLOCK), "timerfd_create")


def set_timer(fd: int, at_boot_ns: int | None) -> None:
    """The descriptor becomes readable at that time; None: never."""
    seconds, nanos = divmod(max(at_boot_ns, 1), 1_000_000_000) if at_boot_ns is not None else (0, 0)
    _check(_timerfd_settime(fd, _TFD_TIMER_ABSTIME, _Timespecs(0, 0, seconds, nanos), None), "timerfd_settime")


def _parents() -> dict[int, tuple[int, str]]:
    """pid -> (parent, state letter) of every process of this machine."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fd = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # it has ended meanwhile
            try:
                stat = os.read(fd, 512)
            except OSError:
                continue
            finally:
                os.close(fd)
            fields = stat[stat.rfind(b")") + 2 :].split(b" ", 2)  # the name may hold anything, also ")"
            if len(fields) > 1:
                table[int(name)] = (int(fields[1]), fields[0].decode())
    return table


def descendants(root: int) -> list[int]:
    """Every living process below `root`, parents before children. With `become_subreaper` nothing below can leave it."""
    table = _parents()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        for pid in children.get(queue.pop(), ()):
            queue.append(pid)
            if table[pid][1] not in "ZX":
                found.append(pid)
    return found


def children(parent: int) -> list[int]:
    """The living direct children of `parent`."""
    return [pid for pid, (above, state) in _parents().items() if above == parent and state not in "ZX"]


def processes_with(cookie: bytes) -> list[int]:
    """Processes whose environment at exec held `NAME=value` (readable ones): what a dead wrapper may have left to the machine's init."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if cookie in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue  # ended, or another user's
    return found
