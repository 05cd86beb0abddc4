"""The page under attack, by real sockets of this machine: floods, who never asks, guesses, lookers who would drive."""

from __future__ import annotations

import http.client
import json
import re
import resource
import select
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from drivers import web_admission
from drivers.devices import open_device
from drivers.teleop import Status
from drivers.web_admission import EACH, TIME, WAITING, Caller, Entrance, party_of
from drivers.web_door import GUESSES, Guesses
from drivers.web_teleop import LOOKERS, WebTeleop
from drivers.web_tls import WebConfig, context_of
from robot_rl.cli import main
from robot_rl.episodes import EpisodeStore
from robot_rl.types import RobotRLError
from tests.lockstep import ROBOT
from tests.test_web_teleop import PUSH, Page, get, held, page, picture, soon

ROOT = Path(__file__).parents[1]
FLOOD, AT_ONCE = 3000, 300  # bare connections, and how many of them the attacker keeps open


@pytest.fixture
def device():
    with closing(WebTeleop("0")) as device:
        yield device


def bare(port, source="127.0.0.1"):
    """A connection that says nothing."""
    return socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0))


def is_open(peer):
    """The server has not ended it."""
    if not select.select([peer], [], [], 0)[0]:
        return True
    try:
        return bool(peer.recv(1))
    except OSError:
        return False


# ---- who may be connected before a token is shown


@contextmanager
def entrance(now):
    with socket.create_server(("127.0.0.1", 0)) as listening, Entrance(listening, now) as opened:
        opened.settimeout(5)
        yield opened


def come(opened, source="127.0.0.1"):
    """The two ends of a connection; None for the server's where it is cut off."""
    peer = bare(opened.getsockname()[1], source)
    try:
        return peer, opened.accept()[0]
    except ConnectionAbortedError:
        return peer, None


def test_fault_f53_there_are_so_many_of_an_address_and_so_many_in_all():
    now = [0.0]
    with entrance(lambda: now[0]) as opened:
        mine = [come(opened) for _ in range(EACH + 3)]
        assert [caller is not None for _, caller in mine] == [True] * EACH + [False] * 3
        assert opened.refused == {"127.0.0.1": 3}
        for i in range(2, 12):
            mine += [come(opened, f"127.0.0.{i}") for _ in range(4)]
        assert len(opened.waiting) == WAITING
        opened.know(mine[0][1].fileno())
        assert len(opened.waiting) == WAITING - 1 and come(opened, "127.0.0.99")[1] is not None


def test_fault_f53_who_waits_longest_makes_room_if_he_had_time_to_ask():
    now = [0.0]
    with entrance(lambda: now[0]) as opened:
        callers = []
        for _ in range(EACH):
            callers.append(come(opened))
            now[0] += 0.1
        now[0] = web_admission.PROMPT - 0.01
        assert come(opened)[1] is None
        now[0] += 0.02
        fresh = come(opened)[1]
        assert fresh is not None and callers[0][1].out and not callers[1][1].out
        assert not is_open(callers[0][0]) and is_open(callers[1][0])
        now[0] += TIME + 1
        opened.sweep()
        assert not opened.waiting


def test_fault_f53_the_last_files_are_not_given_away():
    with entrance(lambda: 0.0) as opened:
        opened.ceiling = opened.fileno() + 4
        ends = [come(opened, f"127.0.0.{i + 2}") for i in range(12)]
        assert sum(caller is not None for _, caller in ends) <= 4 and ends[-1][1] is None
        for _, caller in ends:
            if caller is not None:
                caller.close()
        opened.ceiling = 10**6
        assert isinstance(come(opened)[1], Caller)


@pytest.mark.parametrize(
    ("host", "party"),
    [
        ("10.0.0.7", "10.0.0.7"), ("2001:db8:1:2::7", "2001:db8:1:2::/64"), ("::ffff:10.0.0.7", "10.0.0.7"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)  # fmt: skip
def test_an_address_counts_as_one_and_of_ipv6_a_network(host, party):
    assert party_of(host) == party


def test_fault_f53_where_no_file_would_be_left_no_page_is_served(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(RobotRLError, match="ulimit -n 1024"):
        WebTeleop("0")


# ---- a flood


def flood(port, seconds, look):
    """Bare connections of one address for so long [s], 300 of them open at once; how many were made."""
    made, kept, end = 0, [], time.monotonic() + seconds
    while made < FLOOD and time.monotonic() < end:
        peer = socket.socket()
        peer.setblocking(False)
        peer.connect_ex(("127.0.0.1", port))
        kept.append(peer)
        made += 1
        if len(kept) >= AT_ONCE:
            kept.pop(0).close()
        if made % 20 == 0:
            look()
            time.sleep(0.01)
    for peer in kept:
        peer.close()
    return made


def attacked(tmp_path, files, *tls):
    """The flooded process, and its address."""
    words = [sys.executable, "-m", "tests.flooded", *map(str, (tmp_path / "store", files, *tls))]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, urlsplit(process.stdout.readline().strip())


def open_files(process):
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def test_fault_f53_under_a_flood_every_episode_is_stored_whole_and_the_person_drives(tmp_path):
    process, url = attacked(tmp_path, 160)
    before, seen = open_files(process), []
    with ExitStack() as stack:
        stack.callback(process.kill)
        here, origin = f"ws://{url.netloc}/session?{url.query}", f"http://{url.netloc}"
        made, driven, slowest = 0, 0, 0.0
        while made < FLOOD:
            made += flood(url.port, 0.7, lambda: seen.append(open_files(process)))
            began = time.monotonic()  # somebody else, from another address, opens the page and drives
            with connect(here, origin=origin, compression=None, source_address=("127.0.0.9", 0)) as socket_:
                socket_.send(json.dumps({"say": "drive"}))
                while not json.loads(socket_.recv(timeout=5))["drives"]:
                    pass
                driven, slowest = driven + 1, max(slowest, time.monotonic() - began)
        words = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    stored, slow = re.search(r"stored (\d+) slowest (\S+)", words).groups()
    more = max(seen) - before
    print(f"{made} connections: {stored} episodes, {more} files more, {driven} pages in {slowest:.2f} s, loop {slow} s")
    assert made >= FLOOD and driven and more <= 2 * WAITING + 16
    episodes = list(EpisodeStore.open(tmp_path / "store"))
    assert len(episodes) == int(stored) > 0 and all(len(e) == 5 for e in episodes)
    assert float(slow) < 0.5, "far more than a call, less than any wait for a peer"


def test_fault_f53_who_never_asks_never_ends_or_sends_byte_by_byte_is_turned_out(device):
    peers = [bare(device.port, f"127.0.0.{2 + i}") for i in range(12)]
    for peer in peers[4:8]:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: ")
    begin = time.monotonic()
    while any(is_open(peer) for peer in peers):
        assert time.monotonic() < begin + TIME + 2
        for peer in peers[8:]:
            try:
                peer.sendall(b"G")
            except OSError:
                continue
        time.sleep(0.1)
    assert time.monotonic() - begin > 1
    soon(lambda: not device._socket._callers)
    with page(device) as driver:
        driver.grip()
        soon(lambda: held(device))


def test_fault_f53_a_page_that_takes_nothing_any_more_is_gone(device):
    """It opens its socket as a page does, and reads nothing: what is to be sent to it is stuck, pings too."""
    here, noise = f"127.0.0.1:{device.port}", np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        stuck.connect(("127.0.0.1", device.port))
        stuck.sendall(
            f"GET /session?{device.url.partition('?')[2]} HTTP/1.1\r\nHost: {here}\r\nOrigin: http://{here}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        soon(lambda: device._visitors)
        (visitor,) = device._visitors
        visitor.connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        device.show(Status("recording", images={str(i): noise for i in range(8)}))
        soon(lambda: visitor.connection.transport.get_write_buffer_size() > 2**15)
        soon(lambda: not device._visitors, within=8)
        assert not device._socket._callers


# ---- tokens


class Looker(Page):
    """A page that has the token to look."""

    def __init__(self, device):
        super().__init__(device, token=device.look_url.partition("=")[2])


def test_fault_f53_who_may_only_look_never_drives_whatever_he_says(device):
    with closing(Looker(device)) as looker:
        told = looker.told()
        assert told["vacant"] and not told["drives"] and not told["may"]
        for _ in range(3):
            looker.say(say="drive", may=True, token=device.url.partition("=")[2])
            looker.grip()
            looker.say(say="fingers", closed=True)
            looker.say(say="event", event="start")
        soon(lambda: device.ignored >= 15)
        assert device.hand() is None and device.events() == [] and device._driver is None
        with page(device) as driver:
            driver.grip()
            soon(lambda: held(device))
            assert device.hand()[0] == PUSH[0]
            looker.grip()
            assert held(device) and looker.told()["drives"] is False
        assert looker.told()["vacant"]
        looker.say(say="drive")
        soon(lambda: device.ignored >= 18)
        assert device._driver is None
        device.show(Status("recording", images={"a": picture(3)}))
        soon(lambda: isinstance(looker.socket.recv(timeout=5), bytes))


def test_lookers_leave_room_for_who_may_drive(device):
    with ExitStack() as stack:
        for _ in range(LOOKERS):
            stack.enter_context(closing(Looker(device)))
        soon(lambda: len(device._visitors) == LOOKERS)
        with pytest.raises(InvalidStatus) as error:
            Looker(device)
        assert error.value.response.status_code == 503
        stack.enter_context(page(device))


def ask(device, token, source, path="/"):
    with closing(http.client.HTTPConnection("127.0.0.1", device.port, timeout=5, source_address=(source, 0))) as peer:
        peer.request("GET", f"{path}?token={token}")
        return peer.getresponse().status


def test_fault_f53_an_address_that_guesses_is_not_heard_any_more(device):
    right = device.url.partition("=")[2]
    assert [ask(device, f"guess{i}", "127.0.0.7") for i in range(GUESSES + 3)] == [403] * GUESSES + [429] * 3
    assert ask(device, right, "127.0.0.7", "/session") == 429, "a right guess is not told from a wrong one"
    assert ask(device, right, "127.0.0.8") == 200, "others are not shut out"
    assert [ask(device, "old", "127.0.0.8") for _ in range(GUESSES + 1)] == [403] * (GUESSES + 1)
    assert ask(device, right, "127.0.0.8") == 200, "nor is who is in, and has an old page open beside"


def test_guesses_are_forgotten_after_a_minute_and_addresses_are_bounded():
    guesses = Guesses()
    for i in range(GUESSES):
        assert not guesses.too_many("a", float(i) / 10)
        guesses.add("a", False, float(i) / 10)
    assert guesses.too_many("a", 59.0) and not guesses.too_many("b", 59.0) and not guesses.too_many("a", 60.1)
    for i in range(5000):
        guesses.add(f"address {i}", bool(i % 2), 60.0)
    assert len(guesses._wrong) <= 1024 and len(guesses._known) <= 1024


def test_fault_f53_the_tokens_can_be_kept_out_of_the_terminal(tmp_path):
    file = tmp_path / "page"
    file.write_text("of before, and for all to read")
    file.chmod(0o644)
    with closing(open_device("web:0", ROBOT.spec(), None, WebConfig(address=file))) as device:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().split() == [device.url, device.look_url]
        assert "?token=" not in device.keys and str(file) in device.keys
        assert get(device, "/?" + device.look_url.partition("?")[2])[0] == 200
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(RobotRLError, match="cannot be written"):
        open_device("web:0", ROBOT.spec(), None, WebConfig(address=tmp_path / "no" / "page"))


# ---- TLS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Certificates: `good`, `other`, `old`, which is over, and `secret`, whose key has a pass phrase."""
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    fresh = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost")
    for name in ("good", "other"):
        own = ("-addext", "subjectAltName=IP:127.0.0.1", "-days", "9", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *fresh, *own)
    openssl("req", *fresh, "-keyout", "old.key", "-out", "request")
    openssl("x509", "-req", "-in", "request", "-signkey", "old.key", "-days", "-1", "-out", "old.pem")
    openssl("ec", "-aes128", "-passout", "pass:word", "-in", "good.key", "-out", "secret.key")
    (folder / "none.pem").write_text("no certificate")
    return folder


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("good.pem", None, "--web.cert alone .* --web.key"), (None, "good.key", "--web.key alone .* --web.cert"),
        ("good.pem", "no.key", "no.key cannot be read: No such file"), ("no.pem", "good.key", "no.pem cannot be read"),
        ("good.pem", "other.key", "is not the key of"), ("old.pem", "old.key", "expired.*renew it"),
        ("good.pem", "secret.key", "without a pass phrase"), ("none.pem", "good.key", "in PEM"),
        (".", "good.key", "cannot be read: Is a directory"),
    ],
)  # fmt: skip
def test_fault_f53_a_certificate_that_serves_nobody_is_refused(made, cert, key, words):
    config = WebConfig(*(None if name is None else made / name for name in (cert, key)))
    with pytest.raises(RobotRLError, match=words):
        WebTeleop("0", config)


def test_a_certificate_that_a_chain_stands_above_is_taken(made, tmp_path):
    chain = tmp_path / "chain.pem"
    chain.write_text((made / "good.pem").read_text() + (made / "other.pem").read_text())
    assert context_of(WebConfig(chain, made / "good.key")) is not None


def test_the_page_is_served_by_tls_alone(made):
    with closing(WebTeleop("0", WebConfig(made / "good.pem", made / "good.key"))) as device:
        here, token = f"127.0.0.1:{device.port}", device.url.partition("?")[2]
        assert device.url.startswith("https://127.0.0.1")
        trust = ssl.create_default_context(cafile=made / "good.pem")
        with closing(http.client.HTTPSConnection("127.0.0.1", device.port, timeout=5, context=trust)) as peer:
            peer.request("GET", f"/?{token}")
            answer = peer.getresponse()
            assert answer.status == 200 and f"wss://{here}" in answer.headers["Content-Security-Policy"]
        with pytest.raises(InvalidStatus):
            connect(f"wss://{here}/session?{token}", origin=f"http://{here}", ssl=trust)
        with connect(f"wss://{here}/session?{token}", origin=f"https://{here}", ssl=trust) as driver:
            driver.send(json.dumps({"say": "drive"}))
            soon(lambda: device._driver)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            get(device, f"/?{token}")


def test_fault_f53_bare_connections_are_bounded_before_tls_too(made, tmp_path):
    process, url = attacked(tmp_path, 160, made / "good.pem", made / "good.key")
    before = open_files(process)
    peers = []
    try:
        for _ in range(200):
            peers.append(bare(url.port))
        time.sleep(0.3)
        assert open_files(process) - before <= 2 * WAITING + 16
        words = process.communicate(timeout=60)[0]
    finally:
        process.kill()
        for peer in peers:
            peer.close()
    assert process.returncode == 0 and int(re.search(r"stored (\d+)", words)[1]) == len(
        EpisodeStore.open(tmp_path / "store")
    )


def test_what_says_how_a_page_is_served_needs_a_page(capsys, tmp_path):
    for words in (("check", "--device", "keyboard"), ("collect", "--out", str(tmp_path / "a"))):
        assert main([*words, "--web.cert", "a.pem"]) == 2
        assert "--web.* says how a web page is served" in capsys.readouterr().err


def test_who_is_connected_is_told_when_it_ends():
    device = WebTeleop("0")
    opened = Page(device)
    device.close()
    with pytest.raises(ConnectionClosed):
        while True:
            opened.socket.recv(timeout=5)
    assert not device._socket._callers
