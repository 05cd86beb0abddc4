"""A web page as a device and a screen: a phone or a laptop sees the cameras, drives and marks episodes.

A thread of its own serves the page, so that nothing here slows the control loop: `hand` and `show` touch a few
variables. The first page drives, others only look until it is gone. Pictures are encoded in that thread, the newest
only, and a page gets the next when it has the last; one that is slow gets fewer. See docs/web.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers.teleop import DeviceLost, DeviceSilent, Event, Status
from drivers.web_address import address_of, is_elsewhere, listen, reachable, square
from drivers.web_admission import Entrance
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
from drivers.web_tls import PLAIN, WebConfig, context_of, write_private
from robot_rl.depth import visible
from robot_rl.types import RobotRLError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

PAGES = 8  # that may be open at once
LOOKERS = 6  # of them, that may only look: whoever may drive finds room
SWEPT, TOLD = 0.5, 10.0  # who waits for too long; how many were cut off [s]
STUCK = 3.0  # a page that takes nothing for so long is gone [s]
MESSAGES = 200  # that a page may send in a second; it sends 30
EVENTS = 32  # that wait for `events`
PERIOD = 0.1  # of status and pictures [s]
WIDTH, QUALITY = 640, 75  # of a picture [pixels], [%]
KEYS = (
    "hold HOLD TO MOVE (or Space) and drag the pads; letting go holds the arm. Fingers: the button, or G.\n"
    "The page starts and marks episodes."
)


logger = logging.getLogger(__name__)


class Visitor:
    """A page that is open; `may_drive`, or only look."""

    def __init__(self, connection: ServerConnection, may_drive: bool) -> None:
        self.connection, self.may_drive = connection, may_drive
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

    def __init__(self, where: str = "", config: WebConfig = PLAIN) -> None:
        _require_websockets()
        self._tls = context_of(config)
        self._socket = Entrance(listen(*address_of(where)))
        self.name, self.port = f"web:{where}" if where else "web", self._socket.getsockname()[1]
        self.ignored = 0  # messages that were none, or not the page's to send
        self._door = Door(self._is_full, "http" if self._tls is None else "https")
        here = f"{self._door.scheme}://{reachable(self._socket)}:{self.port}"
        self.url, self.look_url = (f"{here}/?token={token}" for token in (self._door.token, self._door.look_token))
        self.keys = self._told(config)
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

    def _told(self, config: WebConfig) -> str:
        """Where the page is, in the terminal; or in a file, so that no log has the tokens."""
        if config.address is not None:
            write_private(config.address, f"{self.url}\n{self.look_url}\n")
            return f"open the first address in {config.address}; with the second one a page may only look\n{KEYS}"
        code = square(self.url) if is_elsewhere(self._socket) else ""
        return f"open {self.url}\nonly to look: {self.look_url}\n{KEYS}\n{code}".rstrip("\n")

    def _is_full(self, may_drive: bool) -> bool:
        lookers = sum(not visitor.may_drive for visitor in self._visitors)
        return len(self._visitors) >= PAGES or (not may_drive and lookers >= LOOKERS)

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

        tls: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls, "ssl_handshake_timeout": 3}
        async with serve(
            self._meet, sock=self._socket, process_request=self._door.answer, server_header=None, compression=None,
            max_size=SIZE, max_queue=8, write_limit=2**15, open_timeout=3, ping_interval=1, ping_timeout=2,
            close_timeout=1, logger=_quiet(), **tls,
        ):  # fmt: skip
            tasks = [asyncio.create_task(work) for work in (self._end.wait(), self._develop(), self._sweep())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks[1:]:
                task.cancel()
            for task in done:
                task.result()

    async def _sweep(self) -> None:
        """Turn out who waits for too long, and tell of those who were cut off."""
        told = time.monotonic()
        while True:
            await asyncio.sleep(SWEPT)
            self._socket.sweep()
            if self._socket.refused and time.monotonic() > told + TOLD:
                refused, self._socket.refused, told = self._socket.refused, Counter(), time.monotonic()
                (most, _), *_ = refused.most_common(1)
                logger.warning("the web page cut off %d connections, most of them from %s", refused.total(), most)

    async def _meet(self, connection: ServerConnection) -> None:
        """From the opening of a page's socket to its end."""
        from websockets.exceptions import ConnectionClosed

        assert connection.request is not None
        visitor = Visitor(connection, self._door.may_drive(connection.request))
        self._socket.know(connection.transport.get_extra_info("socket").fileno())
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
        if not visitor.may_drive:
            return False
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
                await self._send(visitor, json.dumps(self._words(visitor)))
                if (last := visitor.sent) <= visitor.got:
                    for name, (number, _, jpeg) in sorted(self._pictures.items()):
                        if number > last:
                            visitor.sent = max(visitor.sent, number)
                            await self._send(visitor, _picture(number, name, jpeg))
                await asyncio.sleep(PERIOD)
        except ConnectionClosed:
            pass

    async def _send(self, visitor: Visitor, words: str | bytes) -> None:
        """To a page that takes it; another one is gone."""
        try:
            await asyncio.wait_for(visitor.connection.send(words), STUCK)
        except asyncio.TimeoutError:
            visitor.connection.transport.abort()

    def _words(self, visitor: Visitor) -> dict[str, Any]:
        """What a page is told."""
        status, grip = self._status, self._grip
        words = {} if status is None else {k: v for k, v in vars(status).items() if k != "images"}
        words = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in words.items()}
        return {
            "now": time.monotonic(),
            "drives": visitor is self._driver,
            "may": visitor.may_drive,
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


def _quiet() -> logging.Logger:
    """For what peers do wrong, which is theirs; what fails here is raised."""
    quiet = logging.getLogger(f"{__name__}.peers")
    quiet.setLevel(logging.CRITICAL)
    return quiet


def _require_websockets() -> None:
    try:
        import websockets  # noqa: F401
    except ImportError as error:
        raise RobotRLError("the web page needs websockets: pip install 'robot-rl[web]'") from error
