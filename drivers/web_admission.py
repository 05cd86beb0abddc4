"""Who may be connected to the page, before a byte of him is read: few at once, from each address fewer, for seconds.

A listening socket that counts whom it accepts, with TLS or without: who has not shown a token yet is waiting, and is
turned out after `TIME`. Where an address has all its places, or all are taken, the one that waits longest makes room,
if that is long enough for an honest page to have asked; else the new one is cut off. So a flood costs an accept and a
close each, and it never takes the files that an episode needs: the last ones below the process's limit are kept free.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from robot_rl.types import RobotRLError

WAITING, EACH = 32, 8  # who have shown no token yet: in all, of one address
TIME = 3.0  # ... and so long at most [s]
PROMPT = 0.25  # within which an honest page has asked [s]
RESERVED = 64  # files that connections leave to the rest of the process


class Caller(socket.socket):
    """One connection; `known` once it has shown a token, `out` once it was turned out."""

    def __init__(self, fileno: int, party: str, came: float, gone: Callable[[Caller], None]) -> None:
        super().__init__(fileno=fileno)
        self.number, self.party, self.came, self._gone = fileno, party, came, gone
        self.known = self.out = False

    def turn_out(self) -> None:
        """End it; its transport closes it at the next turn of the loop."""
        self.out = True
        with contextlib.suppress(OSError):  # it was gone already
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """And be forgotten."""
        super().close()
        self._gone(self)


class Entrance(socket.socket):
    """The listening socket `listening`, which it takes over. Times are of the steady clock [s]."""

    def __init__(self, listening: socket.socket, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(listening.family, listening.type, listening.proto, fileno=listening.detach())
        self._now, self.ceiling = now, keep_files()
        self._callers: dict[int, Caller] = {}
        self.refused: Counter[str] = Counter()  # by address, until somebody takes them

    def accept(self) -> tuple[socket.socket, Any]:
        """The next one, if he may come in; else raises `ConnectionAbortedError`, which loops pass over."""
        raw, address = super().accept()
        caller = Caller(raw.detach(), party_of(address[0]), self._now(), self._forget)
        if not self._has_room(caller):
            caller.close()
            self.refused[caller.party] += 1
            raise ConnectionAbortedError
        self._callers[caller.number] = caller
        return caller, address

    def know(self, fileno: int) -> None:
        """The connection with this number has shown its token."""
        if caller := self._callers.get(fileno):
            caller.known = True

    def sweep(self) -> None:
        """Turn out who waits for too long."""
        for caller in list(self._callers.values()):
            if not caller.known and not caller.out and self._now() - caller.came > TIME:
                caller.turn_out()

    @property
    def waiting(self) -> list[Caller]:
        """Who have shown no token yet."""
        return [caller for caller in self._callers.values() if not caller.known and not caller.out]

    def _has_room(self, caller: Caller) -> bool:
        if caller.number >= self.ceiling or sum(not other.known for other in self._callers.values()) >= 2 * WAITING:
            return False  # the least free number is given: all below are taken
        waiting = self.waiting
        crowd = [other for other in waiting if other.party == caller.party]
        if len(crowd) < EACH:
            if len(waiting) < WAITING:
                return True
            most = Counter(other.party for other in waiting).most_common(1)[0][0]
            crowd = [other for other in waiting if other.party == most]
        oldest = min(crowd, key=lambda other: other.came)
        if self._now() - oldest.came < PROMPT:
            return False
        oldest.turn_out()
        return True

    def _forget(self, caller: Caller) -> None:
        if self._callers.get(caller.number) is caller:
            del self._callers[caller.number]


def party_of(host: str) -> str:
    """Who counts as one: an address; of IPv6 its network of 64 bits, all of which one machine may have."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


def keep_files() -> int:
    """The first number of a file that no connection may have; raises where so few are free that no page could open."""
    used, (soft, hard) = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = used + 2 * WAITING + RESERVED + EACH
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        soft = 2**20
    ceiling = soft - min(RESERVED, soft // 2)
    if used + EACH > ceiling:
        raise RobotRLError(
            f"{used} files are open and {soft} may be: the web page would take those that episodes need. Say "
            "`ulimit -n 1024` before"
        )
    return ceiling
