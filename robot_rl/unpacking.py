"""What a file unpacks to is held against what it holds, and what this machine has, before the memory is taken."""

from __future__ import annotations

from pathlib import Path

from robot_rl.types import RobotRLError

GIB = 2**30
UNQUESTIONED = 128 * 2**20  # bytes that any file may unpack to at once, be it as small as it likes
CGROUPS = (  # version 2, version 1: folder, limit, use, and the name of the idle page cache
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
RATIO = 1000  # unpacked to stored bytes that real recordings stay below (a whole dead camera's pictures: up to 3,500)


def available() -> int:
    """Bytes that this process can still take: what the machine has free, or less where a cgroup allows less."""
    free = _lines("/proc/meminfo")["MemAvailable:"] * 1024
    for folder, limit, used, cache in CGROUPS:
        if (most := _number(f"{folder}/{limit}")) is not None and (taken := _number(f"{folder}/{used}")) is not None:
            idle = _lines(f"{folder}/memory.stat").get(cache, 0)  # of the page cache: given back when asked for
            free = min(free, max(most - taken + idle, 0))
    return free


def require(n_bytes: int, what: str) -> None:
    """Raise RobotRLError where `what` needs more memory than there is, with both numbers in GiB."""
    if n_bytes > (free := available()):
        raise RobotRLError(
            f"{what} needs {n_bytes / GIB:,.1f} GiB of memory, {free / GIB:.1f} GiB are free; use fewer episodes, "
            "smaller pictures or a larger machine"
        )


def require_plausible(unpacked: int, stored: int, what: str) -> None:
    """Raise RobotRLError where `what`, `stored` bytes of a file, unpacks to absurdly much, or to more than there is.

    Called before anything is unpacked: a file of 12 kB can ask for 8 TiB.
    """
    if unpacked > max(UNQUESTIONED, RATIO * stored):
        raise RobotRLError(
            f"{what}: {stored:,} bytes unpack to {unpacked / GIB:,.2f} GiB, which no recording does; the file is "
            "damaged or was made to fill the memory. Nothing of it was read"
        )
    if unpacked > UNQUESTIONED:
        require(unpacked, what)


def _lines(file: str) -> dict[str, int]:
    """The lines "key number ..." of a file of the kernel's; none where there is no such file."""
    try:
        lines = [line.split() for line in Path(file).read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines}


def _number(file: str) -> int | None:
    """The number in `file`; None where there is no such file or, as "max", no limit in it."""
    try:
        return int(Path(file).read_text())
    except (OSError, ValueError):
        return None
