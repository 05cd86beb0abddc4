"""What a file unpacks to is held against what it holds, and what this machine has, before the memory is taken."""

from __future__ import annotations

from robot_rl import memory
from robot_rl.memory import GIB
from robot_rl.types import RobotRLError

UNQUESTIONED = 128 * 2**20  # bytes that any file may unpack to at once, be it as small as it likes
RATIO = 1000  # unpacked to stored bytes that real recordings stay below (a whole dead camera's pictures: up to 3,500)


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
        memory.require(unpacked, what)
