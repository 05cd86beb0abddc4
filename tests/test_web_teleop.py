"""The page's server: who may come in, who drives, and that nothing of it slows or harms the loop. Real sockets."""

from __future__ import annotations

import http.client
import json
import pickle
import socket
import time
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from drivers import web_teleop
from drivers.teleop import DeviceLost, Status
from drivers.web_hand import SIZE
from drivers.web_teleop import MESSAGES, PAGES, WebTeleop
from robot_rl.types import RobotRLError

PUSH = [0.5, 0.0, 0.0, 0.0, 0.0, -0.5]


@pytest.fixture
def device():
    with closing(WebTeleop("0")) as device:
        yield device


def get(device, path, host=None):
    with closing(http.client.HTTPConnection("127.0.0.1", device.port, timeout=5)) as connection:
        connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{device.port}"})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


class Page:
    """What page.js says, said by a test."""

    def __init__(self, device, origin=None, token=None):
        here = f"127.0.0.1:{device.port}"
        self._open = ExitStack()
        opening = connect(
            f"ws://{here}/session?token={device.url.partition('=')[2] if token is None else token}",
            origin=origin or f"http://{here}", compression=None, max_size=2**20,
        )  # fmt: skip
        self.socket = self._open.enter_context(opening)
        self.number = 0
        self.say(say="drive")

    def say(self, **words):
        self.socket.send(json.dumps(words))

    def told(self, fresh=True):
        """The next status, or one that was sent after this call; pictures between are dropped."""
        asked = time.monotonic()
        while True:
            words = self.socket.recv(timeout=5)
            if isinstance(words, str) and (not fresh or json.loads(words)["now"] >= asked):
                return json.loads(words)

    def hand(self, held, motion=PUSH):
        self.number += 1
        self.say(say="hand", n=self.number, seen=time.monotonic(), held=held, motion=motion)

    def grip(self):
        self.hand(False)
        self.hand(True)

    def cut(self):
        """End the connection without a word."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._open.close()


@contextmanager
def page(device, **wrong):
    with closing(Page(device, **wrong)) as opened:
        yield opened


def soon(true, within=3.0):
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def held(device):
    try:
        return device.hand() is not None
    except DeviceLost:
        return False


def lost(device):
    try:
        device.hand()
    except DeviceLost:
        return True
    return False


# ---- who may come in


def test_the_page_opens_with_its_token_and_loads_nothing_from_elsewhere(device):
    status, headers, body = get(device, "/?" + device.url.partition("?")[2])
    assert status == 200 and "HOLD TO MOVE" in body and device.url.partition("=")[2] not in body
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'") and "unsafe" not in policy
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    for path in ("/page.js", "/page.css"):
        status, headers, text = get(device, path)
        assert status == 200 and "https://" not in body + text and "//cdn" not in text
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("", 401, "lacks its token"), ("?token=", 401, "lacks its token"), ("?" + "token=a&" * 30, 401, "lacks"),
        ("?token=wrong", 403, "not the one of this session"), ("?token=%ff%00", 403, "not the one"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/session"])
def test_without_the_token_there_is_a_clear_page_and_no_socket(device, path, query, status, text):
    given, headers, body = get(device, path + query)
    assert (
        given == status
        and text in body
        and headers["Content-Security-Policy"].startswith("default-src 'none'; base-uri")
    )
    assert not device._visitors


def test_a_wrong_token_opens_no_socket(device):
    with pytest.raises(InvalidStatus) as error:
        Page(device, token="wrong")
    assert error.value.response.status_code == 403


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/page.html", "/web/page.js", "//", "/session/", "/%2e%2e/page.js"]
)
def test_there_are_no_other_files(device, path):
    assert get(device, f"{path}?{device.url.partition('?')[2]}")[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[fe80::1%a;b]:80", "@", ":"]
)
def test_a_name_that_is_not_this_machines_is_refused(device, host):
    for path in ("/page.js", "/?" + device.url.partition("?")[2]):
        assert get(device, path, host)[0] == 403


@pytest.mark.parametrize("host", ["localhost:9000", "192.168.1.7:8080", "[::1]:8080", socket.gethostname()])
def test_this_machine_may_be_reached_by_number_by_name_and_through_a_tunnel(device, host):
    assert get(device, "/?" + device.url.partition("?")[2], host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1", "null"])
def test_a_foreign_page_opens_no_socket(device, origin):
    with pytest.raises(InvalidStatus) as error:
        Page(device, origin=origin)
    assert error.value.response.status_code == 403


def test_each_session_has_a_token_of_its_own(device):
    with closing(WebTeleop("0")) as other:
        assert other.url.partition("=")[2] != device.url.partition("=")[2] and len(device.url.partition("=")[2]) >= 24


# ---- where it listens


def test_it_listens_on_this_machine_alone_unless_asked():
    with closing(WebTeleop("0")) as device:
        assert device._socket.getsockname()[0] == "127.0.0.1"
    with closing(WebTeleop("0.0.0.0:0")) as device:
        assert device._socket.getsockname()[0] == "0.0.0.0" and "0.0.0.0" not in device.url
        assert get(device, "/page.css")[0] == 200
        assert read_square(device.keys) == device.url, "a phone reads the address off the terminal"


def read_square(text):
    import cv2

    lines = [line for line in text.splitlines() if set(line) <= set(" ▄▀█") and line]
    light = np.array([[[c in "▀█", c in "▄█"] for c in line] for line in lines]).transpose(0, 2, 1)
    large = np.kron(light.reshape(2 * len(lines), -1), np.ones((8, 8))).astype(np.uint8) * 255
    return cv2.QRCodeDetector().detectAndDecode(np.pad(large, 40, constant_values=255))[0]


@pytest.mark.parametrize("where", ["http", "1.2.3.4:99999", "-1", "203.0.113.9:0", "no.such.host.invalid:0"])
def test_an_address_that_cannot_be_served_is_refused_with_the_remedy(where):
    with pytest.raises(RobotRLError, match="web:"):
        WebTeleop(where)


def test_a_port_in_use_is_refused(device):
    with pytest.raises(RobotRLError, match="web:8081"):
        WebTeleop(str(device.port))


# ---- who drives


def test_nobody_holds_it_before_a_page_does(device):
    assert device.hand() is None and device.events() == []


def test_a_page_drives_starts_and_marks(device):
    with page(device) as driver:
        driver.hand(True)
        assert driver.told()["grip"] == "release" and device.hand() is None
        driver.grip()
        soon(lambda: held(device))
        np.testing.assert_array_equal(device.hand(), [*PUSH, -1.0])
        driver.say(say="fingers", closed=True)
        for event in ("start", "launch", "success"):
            driver.say(say="event", event=event)
        soon(lambda: device.ignored == 1)
        driver.hand(True)
        soon(lambda: len(device._events) == 2)
        assert device.events() == ["start", "success"] and device.events() == []
        assert device._grip.closed == 1.0
        driver.hand(False)
        soon(lambda: not held(device))
        assert device.hand() is None
        device.fingers(-1.0)
        assert driver.told()["closed"] is False


def test_a_second_page_only_looks_until_the_first_is_gone(device):
    with page(device) as driver, page(device) as other:
        assert driver.told()["drives"]
        told = other.told()
        assert not told["drives"] and not told["vacant"] and told["pages"] == 2
        other.grip()
        other.say(say="event", event="start")
        other.say(say="fingers", closed=True)
        soon(lambda: device.ignored == 5)  # that it would drive, two hands, start and fingers
        assert device.hand() is None and device.events() == []
        driver.close()
        soon(lambda: lost(device))
        assert other.told()["vacant"]
        other.say(say="drive")
        soon(lambda: other.told()["drives"])
        assert device.hand() is None
        other.grip()
        soon(lambda: held(device))


def test_silence_and_a_broken_connection_let_go_until_it_is_pressed_anew(device):
    driver = Page(device)
    driver.grip()
    soon(lambda: held(device))
    soon(lambda: lost(device), within=1.0)
    driver.hand(True)
    driver.told()
    assert lost(device)
    driver.grip()
    soon(lambda: held(device))
    driver.cut()
    soon(lambda: lost(device), within=1.0)
    with pytest.raises(DeviceLost, match="open it again"):
        soon(lambda: device._driver is None)
        device.hand()
    with page(device) as again:
        again.hand(True)
        assert again.told()["drives"] and device.hand() is None
        again.grip()
        soon(lambda: held(device))


def test_a_page_that_stops_answering_is_gone(device):
    """As a phone out of the network's reach: the connection stands, and nothing comes."""
    with socket.create_connection(("127.0.0.1", device.port)) as dead:
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        here = f"127.0.0.1:{device.port}"
        dead.sendall(
            f"GET /session?{device.url.partition('?')[2]} HTTP/1.1\r\nHost: {here}\r\nOrigin: http://{here}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        soon(lambda: device._visitors)
        drive = b'{"say": "drive"}'
        dead.sendall(bytes([0x81, 0x80 | len(drive)]) + bytes(4) + drive)
        soon(lambda: device._driver)
        assert device.hand() is None
        soon(lambda: lost(device), within=8.0)
        assert not device._visitors


# ---- bad input


def masked_frame_header(size):
    return bytes([0x81, 0x80 | 127]) + size.to_bytes(8, "big") + bytes(4)


@pytest.mark.parametrize(
    "payload",
    [pickle.dumps({"say": "drive"}), bytes(range(256)) * 3, "x" * 900, "[" * 900, '{"say": "hand", "motion": [NaN]}'],
)
def test_senseless_messages_are_counted_and_do_nothing(device, payload):
    with page(device) as driver:
        before = device.ignored
        driver.socket.send(payload)
        soon(lambda: device.ignored == before + 1)
        assert driver.told()["drives"] and device.hand() is None


def test_a_message_too_large_is_refused_by_its_announcement(device):
    driver = Page(device)
    memory = psutil.Process().memory_info().rss
    driver.socket.socket.sendall(masked_frame_header(10**9) + b"x" * 1000)
    with pytest.raises(ConnectionClosed) as error:
        while True:
            driver.socket.recv(timeout=5)
    assert error.value.rcvd.code == 1009
    assert psutil.Process().memory_info().rss - memory < 50e6
    with page(device) as driver, pytest.raises(ConnectionClosed):
        driver.socket.send("x" * (SIZE + 1))
        while True:
            driver.socket.recv(timeout=5)


def test_a_page_that_says_too_much_is_closed(device):
    with page(device) as driver, pytest.raises(ConnectionClosed) as error:
        for _ in range(3 * MESSAGES):
            driver.say(say="picture", n=0)
        while True:
            driver.socket.recv(timeout=5)
    assert error.value.rcvd.code == 1008


def test_events_that_nobody_asks_for_do_not_pile_up(device):
    with page(device) as driver:
        for _ in range(100):
            driver.say(say="event", event="start")
        soon(lambda: device.ignored >= 100 - web_teleop.EVENTS)
    assert len(device.events()) == web_teleop.EVENTS


def test_there_is_room_for_some_pages_only(device):
    pages = [Page(device) for _ in range(PAGES)]
    soon(lambda: len(device._visitors) == PAGES)
    with pytest.raises(InvalidStatus) as error:
        Page(device)
    assert error.value.response.status_code == 503
    for opened in pages:
        opened.close()


@pytest.mark.parametrize(
    "raw",
    [b"\x80\x04\x95", b"GET /" + b"a" * 9000, b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", b"\x16\x03\x01"],
)
def test_what_is_no_request_is_cut_off(device, raw):
    with socket.create_connection(("127.0.0.1", device.port), timeout=5) as peer:
        peer.sendall(raw)
        peer.shutdown(socket.SHUT_WR)
        answer = peer.recv(100)
    assert b" 200 " not in answer and b" 101 " not in answer
    assert get(device, "/page.css")[0] == 200


def test_a_thousand_connections_leave_nothing_behind(device):
    process = psutil.Process()

    def visit(i):
        if i % 10:
            assert get(device, "/session?token=wrong" if i % 2 else "/?" + device.url.partition("?")[2])[0] in (
                200,
                403,
            )
        else:
            with page(device) as driver:
                driver.grip()

    for i in range(100):
        visit(i)
    soon(lambda: not device._visitors)
    files, threads, memory = process.num_fds(), process.num_threads(), process.memory_info().rss
    for i in range(1000):
        visit(i)
    soon(lambda: not device._visitors and process.num_fds() <= files)
    assert process.num_threads() <= threads and process.memory_info().rss - memory < 20e6
    assert device._thread.is_alive()


# ---- what is seen


def picture(value, size=(48, 64)):
    return np.full((*size, 3), value, np.uint8)


def test_the_page_is_shown_status_and_pictures(device):
    import cv2

    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 255
    with page(device) as viewer:
        status = Status("recording", 2, 10, 7, True, 19.9, float("inf"), 3, "camera 'wrist' lags", "go", {"wrist": red})
        device.show(status)
        while not isinstance(raw := viewer.socket.recv(timeout=5), bytes):
            pass
        assert raw[:5] == bytes([0, 0, 0, 1, 5]) and raw[5:10] == b"wrist"
        seen = cv2.imdecode(np.frombuffer(raw[10:], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(seen.astype(int) - red).max() < 12
        expected = {**vars(status), "age": None}  # JSON has no infinity
        del expected["images"]
        assert viewer.told()["status"] == expected


def test_pictures_are_the_newest_and_wait_for_the_page(device):
    with page(device) as viewer:
        device.show(Status("waiting", images={"a": picture(0)}))
        time.sleep(0.5)
        for value in range(1, 6):
            device.show(Status("waiting", images={"a": picture(value * 40)}))
            time.sleep(0.15)
        time.sleep(0.3)
        viewer.say(say="picture", n=1)
        time.sleep(0.5)
        numbers = []
        for _ in range(40):
            raw = viewer.socket.recv(timeout=5)
            if isinstance(raw, bytes):
                numbers.append(int.from_bytes(raw[:4], "big"))
            if len(numbers) == 2:
                break
    assert numbers[0] == 1 and numbers[1] >= 4


def test_a_large_picture_is_made_smaller():
    import cv2

    jpeg = web_teleop._jpeg(picture(7, (720, 1280)))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (360, 640, 3)


def test_a_page_that_reads_nothing_slows_neither_the_loop_nor_another_page(device):
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with page(device) as driver, page(device) as stuck:
        stuck.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.say(say="picture", n=0)
        slowest, end = 0.0, time.monotonic() + 2.0
        while time.monotonic() < end:
            driver.hand(False)
            began = time.perf_counter()
            device.show(Status("recording", images={"a": noise.copy()}))
            device.hand()
            slowest = max(slowest, time.perf_counter() - began)
            time.sleep(0.02)
        assert driver.told()["drives"]
        stuck.cut()
    assert slowest < 0.1, "far more than a call, less than any wait for a peer"


# ---- the end


def test_the_pages_are_told_when_it_closes_and_the_port_is_free_again():
    device = WebTeleop("0")
    driver = Page(device)
    device.close()
    device.close()
    with pytest.raises(ConnectionClosed):
        while True:
            driver.socket.recv(timeout=5)
    with closing(WebTeleop(str(device.port))) as again:
        assert again.port == device.port


def test_a_server_that_fails_is_a_lost_device(device, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    with page(device):
        device.show(Status("waiting", images={"a": np.zeros((0, 0, 3), np.uint8)}))
        soon(lambda: lost(device))
    with pytest.raises(DeviceLost, match="server failed"):
        device.hand()
