"""Total and available memory of the host, within the limits of container and process."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

CGROUP = "/sys/fs/cgroup"
CGROUP_FILES = (  # of cgroup v2 and v1: limit, usage, and the key of reclaimable page cache in memory.stat
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
MEMINFO = "/proc/meminfo"
UNLIMITED = 1 << 60


class Memory(NamedTuple):
    """Memory of a device, in bytes.

    Attributes
    ----------
    free : int
        Available, including what the system or a library would release.
    total : int
    """

    free: int
    total: int


def host_memory() -> Memory | None:
    """Return the memory that this process may use; None if the system does not tell."""
    found = _of_the_machine()
    if found is None:
        return None
    for limit, used in (_of_the_container(), _of_the_process()):
        if limit < found.total:
            found = Memory(max(min(found.free, limit - used), 0), limit)
    return found


def _lines(*path: str) -> list[str]:
    with open(os.path.join(*path), encoding="ascii") as file:  # pathlib would double the time of this import
        return file.read().splitlines()


def _of_the_machine() -> Memory | None:
    try:
        lines = dict(line.split(":", 1) for line in _lines(MEMINFO))
        return Memory(*(int(lines[name].split()[0]) << 10 for name in ("MemAvailable", "MemTotal")))
    except (OSError, KeyError, ValueError):
        pass
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return Memory(page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _of_the_container() -> tuple[int, int]:
    """Return the limit of the control group, and the usage that cannot be reclaimed."""
    for names in CGROUP_FILES:
        try:
            limit, used = (int(_lines(CGROUP, name)[0]) for name in names[:2])
            lines = dict(line.split() for line in _lines(CGROUP, os.path.dirname(names[0]), "memory.stat"))
            return limit, used - int(lines.get(names[2], 0))
        except (OSError, ValueError):  # no limit, or no cgroups
            pass
    return UNLIMITED, 0


def _of_the_process() -> tuple[int, int]:
    """Return the limit of the address space, and its usage."""
    if sys.platform == "win32":
        return UNLIMITED, 0
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return UNLIMITED, 0
    try:
        pages = int(_lines("/proc/self/statm")[0].split()[0])
    except (OSError, ValueError):
        return limit, 0
    return limit, pages * resource.getpagesize()
