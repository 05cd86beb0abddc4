"""A network that loses, delays or is cut: two namespaces with a TAP device each, and a thread between them."""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TUNSETIFF, TAP_WITHOUT_HEADER, CLONE_NEWNET = 0x400454CA, 0x1002, 0x40000000
FRAME = 65536  # [bytes]


class BadNetwork:
    """Frames go both ways, with `loss` (a share), `delay` (one way, [s]) and `cut`. Raises OSError where forbidden.

    Neither namespace has another device but its loopback: nothing gets out of this machine, or in.
    """

    def __init__(self, name: str) -> None:
        self.loss, self.delay, self.cut = 0.0, 0.0, False
        self.lost = self.passed = 0
        self.here, self.there = f"{name}a", f"{name}b"
        self._ends = [_tap(self.here), _tap(self.there)]
        self._random, self._closed = random.Random(0), threading.Event()
        for number, side in enumerate((self.here, self.there), 1):
            for command in (
                f"netns add {side}",
                f"link set {side} netns {side}",
                f"-n {side} addr add 10.213.0.{number}/24 dev {side}",
                f"-n {side} link set lo up",
                f"-n {side} link set {side} up",
            ):
                self._ip(command)
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and all that it starts within, is on this side."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        after = os.open(f"/var/run/netns/{self.here}", os.O_RDONLY)
        try:
            _enter(after)
            yield
        finally:
            _enter(before)
            os.close(before)
            os.close(after)

    def behind(self, *command: object) -> list[str]:
        """`command`, to be run on the other side."""
        return ["ip", "netns", "exec", self.there, *map(str, command)]

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._free()

    def _ip(self, command: str) -> None:
        try:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self._free()
            raise OSError(f"ip {command}: {error}") from error

    def _free(self) -> None:
        for side in (self.here, self.there):
            if Path("/var/run/netns", side).exists():
                subprocess.run(["ip", "netns", "del", side], capture_output=True)
        for end in self._ends:
            os.close(end)  # the devices go with them

    def _forward(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []  # due [s], order, to which end, frame
        while not self._closed.is_set():
            wait = min(max(waiting[0][0] - time.monotonic(), 0.0), 0.05) if waiting else 0.05
            for end in select.select(self._ends, [], [], wait)[0]:
                frame = os.read(end, FRAME)
                if self.cut or self._random.random() < self.loss:
                    self.lost += 1
                    continue
                self.passed += 1
                other = self._ends[1 - self._ends.index(end)]
                heapq.heappush(waiting, (time.monotonic() + self.delay, self.passed, other, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, end, frame = heapq.heappop(waiting)
                os.write(end, frame)


def _tap(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", name.encode(), TAP_WITHOUT_HEADER))
    return end


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
