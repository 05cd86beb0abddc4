"""A web page as a device and a screen: a phone or a laptop sees the cameras, drives and marks episodes.

A thread of its own serves the page, so that nothing here slows the control loop: `hand` and `show` touch a few
variables. The first page drives, others only look until it is gone. Pictures are encoded in that thread, the newest
only, and a page gets the next when it has the last; one that is slow gets fewer. See docs/web.md.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers.teleop import DeviceLost, DeviceSilent, Event, Status
from drivers.web_door import Door
from drivers.web_hand import (
    SIZE,
    DriveMessage,
    EventMessage,
    FingersMessage,
    Grip,
    HandMessage,
    Message,
    PictureMessage,
    parse,
)
from robot_rl.depth import visible
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

PORT = 8080
PAGES = 8  # that may be open at once
MESSAGES = 200  # that a page may send in a second; it sends 30
EVENTS = 32  # that wait for `events`
PERIOD = 0.1  # of status and pictures [s]
WIDTH, QUALITY = 640, 75  # of a picture [pixels], [%]
KEYS = (
    "hold HOLD TO MOVE (or Space) and drag the pads; letting go holds the arm. Fingers: the button, or G.\n"
    "The page starts and marks episodes."
)


class Visitor:
    """A page that is open."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.sent = self.got = 0  # numbers of the newest picture that was sent, and that the page has
        self._second, self._said = 0.0, 0

    def says_too_much(self, now: float) -> bool:
        """One more message at `now` [s] is more than a page may send."""
        if now - self._second >= 1.0:
            self._second, self._said = now, 0
        self._said += 1
        return self._said > MESSAGES


class WebTeleop:
    """Implements `Device` and `Screen`. `where` is "8080", "0.0.0.0:8080" or ""; port 0: any that is free."""

    def __init__(self, where: str = "") -> None:
        _require_websockets()
        self._socket = _listen(*_address(where))
        self.name, self.port = f"web:{where}" if where else "web", self._socket.getsockname()[1]
        self.ignored = 0  # messages that were none, or not the page's to send
        self._door = Door(lambda: len(self._visitors) >= PAGES)
        self.url = f"http://{_reachable(self._socket)}:{self.port}/?token={self._door.token}"
        self.keys = f"open {self.url}\n{KEYS}\n{_square(self.url) if _elsewhere(self._socket) else ''}".rstrip("\n")
        self._lock = threading.Lock()  # around the next lines
        self._driver: Visitor | None = None
        self._grip = Grip(closed=-1.0)
        self._gone, self._failed = False, ""  # the page that drove; the server
        self._events: deque[Event] = deque()
        self._status: Status | None = None
        self._visitors: set[Visitor] = set()
        self._pictures: dict[str, tuple[int, np.ndarray, bytes]] = {}  # by camera: number, as it was, as it is sent
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="web page", daemon=True)
        self._thread.start()

    def hand(self) -> np.ndarray | None:
        """See `Device`. None before the first page drives; a page that drove and is gone is a lost device."""
        with self._lock:
            if self._failed:
                raise DeviceLost(f"the web page's server failed: {self._failed}")
            if self._gone:
                raise DeviceSilent("the web page that drove is gone; open it again")
            return self._grip.hand(time.monotonic())

    def events(self) -> list[Event]:
        """See `Device`."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def fingers(self, closed: float) -> None:
        """See `Device`."""
        with self._lock:
            self._grip.follow(closed)

    def show(self, status: Status) -> None:
        """See `Screen`. The pictures in it shall not be written to afterwards."""
        self._status = status

    def close(self) -> None:
        """See `Device`; the pages are told."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:  # of any kind: whoever drives must learn that nobody listens any more
            with self._lock:
                self._failed = repr(error)
            raise
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        from websockets.asyncio.server import serve

        async with serve(
            self._meet, sock=self._socket, process_request=self._door.answer, server_header=None, compression=None,
            max_size=SIZE, max_queue=8, write_limit=2**15, open_timeout=3, ping_interval=1, ping_timeout=2,
            close_timeout=1,
        ):  # fmt: skip
            tasks = [asyncio.create_task(self._develop()), asyncio.create_task(self._end.wait())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            tasks[0].cancel()
            for task in done:
                task.result()

    async def _meet(self, connection: ServerConnection) -> None:
        """From the opening of a page's socket to its end."""
        from websockets.exceptions import ConnectionClosed

        visitor = Visitor(connection)
        self._visitors.add(visitor)
        telling = asyncio.create_task(self._tell(visitor))
        try:
            async for raw in connection:
                if visitor.says_too_much(time.monotonic()):
                    await connection.close(1008, "too many messages")
                self._hear(visitor, parse(raw))
        except ConnectionClosed:
            pass  # as pages do, in one way or another
        finally:
            telling.cancel()
            self._visitors.discard(visitor)
            self._leave(visitor)

    def _leave(self, visitor: Visitor) -> None:
        with self._lock:
            if self._driver is visitor:
                self._driver, self._grip = None, Grip(self._grip.closed)
                self._gone = True

    def _hear(self, visitor: Visitor, message: Message | None) -> None:
        with self._lock:
            taken = self._take(visitor, message)
        self.ignored += not taken

    def _take(self, visitor: Visitor, message: Message | None) -> bool:
        """Do what a page says; False: it means nothing, or is not this page's to say."""
        if isinstance(message, PictureMessage):
            visitor.got = max(visitor.got, min(message.number, visitor.sent))
            return True
        if isinstance(message, DriveMessage) and self._driver is None:
            self._driver, self._grip, self._gone = visitor, Grip(self._grip.closed), False
        if visitor is not self._driver:
            return False
        match message:
            case HandMessage():
                return self._grip.hear(message, time.monotonic())
            case FingersMessage():
                self._grip.set_fingers(message.closed)
            case EventMessage():
                if len(self._events) >= EVENTS:
                    return False
                self._events.append(message.event)
        return message is not None

    async def _tell(self, visitor: Visitor) -> None:
        """Status, and pictures as fast as the page takes them."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                await visitor.connection.send(json.dumps(self._words(visitor)))
                if (last := visitor.sent) <= visitor.got:
                    for name, (number, _, jpeg) in sorted(self._pictures.items()):
                        if number > last:
                            visitor.sent = max(visitor.sent, number)
                            await visitor.connection.send(_picture(number, name, jpeg))
                await asyncio.sleep(PERIOD)
        except ConnectionClosed:
            pass

    def _words(self, visitor: Visitor) -> dict[str, Any]:
        """What a page is told."""
        status, grip = self._status, self._grip
        words = {} if status is None else {k: v for k, v in vars(status).items() if k != "images"}
        words = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in words.items()}
        return {
            "now": time.monotonic(),
            "drives": visitor is self._driver,
            "vacant": self._driver is None,
            "grip": "held" if grip.held else "release" if grip.must_release else "up",
            "late": grip.late,
            "closed": grip.closed > 0,
            "pages": len(self._visitors),
            "ignored": self.ignored,
            "status": words,
        }

    async def _develop(self) -> None:
        """Encode new pictures while somebody looks."""
        number = 0
        while True:
            await asyncio.sleep(PERIOD)
            images = self._status.images if self._status is not None and self._visitors else {}
            for name, image in list(images.items()):
                if name not in self._pictures or self._pictures[name][1] is not image:
                    number += 1
                    self._pictures[name] = (number, image, await asyncio.to_thread(_jpeg, image))


def _picture(number: int, name: str, jpeg: bytes) -> bytes:
    """As a page takes it: number (4 bytes, big-endian), length of the name (1), name, JPEG."""
    camera = name.encode()[:255]
    return number.to_bytes(4, "big") + bytes([len(camera)]) + camera + jpeg


def _jpeg(image: np.ndarray) -> bytes:
    """Of a picture (see `CameraSpec`), not wider than `WIDTH`."""
    import cv2

    image = visible(image)
    height, width = image.shape[:2]
    if width > WIDTH:
        image = cv2.resize(image, (WIDTH, round(height * WIDTH / width)), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _require_websockets() -> None:
    try:
        import websockets  # noqa: F401
    except ImportError as error:
        raise RobotRLError("the web page needs websockets: pip install 'robot-rl[web]'") from error


def _address(where: str) -> tuple[str, int]:
    """Host and port of "", "8080", "0.0.0.0:8080" or "[::]:8080"."""
    host, _, port = where.rpartition(":")
    if port and not (port.isdecimal() and int(port) < 2**16):
        raise RobotRLError(f"'web:{where}' names no port: use web:8080, or web:0.0.0.0:8080 for the whole network")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port or PORT)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise RobotRLError(
            f"no page can be served at {host}:{port}: {error.strerror}. Take another port, as in web:8081; "
            "the host is this machine's own, 0.0.0.0 for all of its networks, or left out for this machine alone."
        ) from error


def _elsewhere(listening: socket.socket) -> bool:
    """Other machines reach it."""
    return not ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _square(text: str) -> str:
    """A QR code for a phone's camera, two of its rows in one of the terminal's; drawn is what is light on paper."""
    import cv2

    light = cv2.QRCodeEncoder.create().encode(text) > 0
    light = np.pad(light, ((0, len(light) % 2), (0, 0)), constant_values=True)
    return "\n".join("".join(" ▄▀█"[two] for two in row) for row in 2 * light[::2] + light[1::2])


def _reachable(listening: socket.socket) -> str:
    """The host for the page's address; where all networks are meant, this machine's number in the one it sends by."""
    host = str(listening.getsockname()[0])
    if ipaddress.ip_address(host).is_unspecified:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # nothing is sent; the address is nobody's
                host = probe.getsockname()[0]
            except OSError:
                host = socket.gethostname()
    return f"[{host}]" if ":" in host else host
