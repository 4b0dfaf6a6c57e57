"""Total and available memory of the host, within the limits of container and process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (  # of cgroup v2 and v1: limit, usage, and the key of reclaimable page cache in memory.stat
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
MEMINFO = Path("/proc/meminfo")
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


def _of_the_machine() -> Memory | None:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
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
            limit, used = (int((CGROUP / name).read_text(encoding="ascii")) for name in names[:2])
            lines = (CGROUP / names[0]).with_name("memory.stat").read_text(encoding="ascii").splitlines()
            return limit, used - int(dict(line.split(maxsplit=1) for line in lines).get(names[2], 0))
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
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return limit, 0
    return limit, pages * resource.getpagesize()
