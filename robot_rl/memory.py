"""Memory is asked for before it is taken: what will not fit is refused by name, and not by the kernel hours later."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robot_rl.types import CameraSpec, RobotRLError

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Bytes that this process can still take: what the machine has, or what its container is allowed, if less."""
    found = [_of_machine()]
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int((CGROUP / most).read_text()) - int((CGROUP / used).read_text()))
        except (OSError, ValueError):  # no such controller, or "max"
            continue
    return max(min(found), 0)


def _of_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def require(size: float, what: str, remedy: str) -> None:
    """Raise unless `size` bytes are available for `what`."""
    if size > (free := available()):
        raise RobotRLError(
            f"{what} would need {size / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB are available: {remedy}"
        )


def of_pictures(cameras: Sequence[CameraSpec], rows: int) -> int:
    """Bytes of so many pictures of each camera."""
    return rows * sum(int(np.prod(camera.shape)) * camera.dtype.itemsize for camera in cameras)


def require_pictures(cameras: Sequence[CameraSpec], rows: int, copies: int = 1) -> None:
    """Raise unless so many pictures of each camera fit, `copies` times."""
    sides = ", ".join(f"{c.name} of {c.height} x {c.width} pixels" for c in cameras)
    require(
        copies * of_pictures(cameras, rows),
        f"{rows:,} pictures each of {sides}{f', held {copies} times,' if copies > 1 else ''}",
        "use fewer episodes (--max-episodes) or cameras, or record them smaller (--image-size)",
    )
