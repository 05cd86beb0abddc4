"""A network that loses, delays or is cut, from here into a network namespace: two TAP devices and a thread."""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time

TUNSETIFF, TAP_WITHOUT_HEADER = 0x400454CA, 0x1002
FRAME = 65536  # [bytes]


class BadNetwork:
    """Frames go both ways, with `loss` (a share), `delay` (one way, [s]) and `cut`. Raises OSError where forbidden."""

    def __init__(self, name: str) -> None:
        self.name, self.loss, self.delay, self.cut = name, 0.0, 0.0, False
        self.lost = self.passed = 0
        self._ends = [_tap(f"{name}0"), _tap(f"{name}1")]
        self._random, self._closed = random.Random(0), threading.Event()
        for command in (
            f"netns add {name}",
            f"link set {name}1 netns {name}",
            f"addr add 10.213.0.1/24 dev {name}0",
            f"link set {name}0 up",
            f"-n {name} addr add 10.213.0.2/24 dev {name}1",
            f"-n {name} link set lo up",
            f"-n {name} link set {name}1 up",
        ):
            try:
                subprocess.run(["ip", *command.split()], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                self._free()
                raise OSError(f"ip {command}: {error}") from error
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    def inside(self, *command: object) -> list[str]:
        """`command`, to be run behind the network."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._free()

    def _free(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)
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
