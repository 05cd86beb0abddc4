"""The page in a real browser: Chromium without a window, driven as a person drives it.

With ROBOT_RL_SCREENSHOTS set to a folder the pictures of docs/ are made there.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from drivers.teleop import DeviceLost, Status
from drivers.web_teleop import WebTeleop
from tests.browser import DESKTOP, PHONE, open_browser

missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
# In real time on a shared machine a stall of the browser looks like a network that is cut, which rightly lets go.
pytestmark = [
    pytest.mark.flaky(reruns=2),
    pytest.mark.skipif(
        bool(missing),
        reason=f"NOT TESTED: no {' and no '.join(missing)} here; apt-get install chromium chromium-driver",
    ),
]
SCENE = np.zeros((240, 320, 3), np.uint8)
SCENE[:, :, 2] = np.linspace(40, 200, 240, dtype=np.uint8)[:, None]
SCENE[120:180, 130:190] = (230, 120, 40)


class Loop:
    """Asks the device for its hand 20 times a second and shows the status, as a session does."""

    def __init__(self, device):
        self.device, self.hand, self.events, self.lost, self.over = device, None, [], "", False
        self.status = Status("waiting", 2, 10, 0, False, 20.0, 0.013, 0, "", "press start", {"agentview": SCENE})
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while not self.over:
            try:
                self.hand, self.lost = self.device.hand(), ""
            except DeviceLost as error:
                self.hand, self.lost = None, str(error)
            self.events += self.device.events()
            self.device.show(self.status)
            time.sleep(0.05)


@pytest.fixture
def browser():
    """A new one for each test: a tab that was hidden in one takes no touch in the next."""
    with open_browser() as opened:
        yield opened


@contextmanager
def session(browser, viewport):
    with closing(WebTeleop("0")) as device:
        loop = Loop(device)
        browser.resize(viewport)
        browser.open(device.url)
        browser.errors()  # those of the page before
        browser.until(lambda: browser.role == "driver" and browser.grip == "up")
        try:
            yield loop
        finally:
            loop.over = True
            browser.lift()
            browser.open("about:blank")


def keep(browser, name):
    if folder := os.environ.get("ROBOT_RL_SCREENSHOTS"):
        browser.screenshot(Path(folder) / name)


def test_a_phone_drives_holds_and_marks(browser):
    with session(browser, PHONE) as loop:
        assert browser.text("state") == "WAITING" and browser.text("episodes") == "2 / 10"
        browser.until(lambda: browser.shows_picture("agentview"))
        browser.touch("[data-axes=move]", 0.5, 0.02)
        time.sleep(0.3)
        assert loop.hand is None, "the pads alone move nothing"
        browser.touch("#deadman", 0.5, 0.5)
        browser.until(lambda: loop.hand is not None and loop.hand[0] == pytest.approx(0.4), "up is +x, at 40 % speed")
        assert np.abs(loop.hand[1:6]).max() < 0.05
        browser.until(lambda: browser.grip == "held", "the page is told ten times a second")
        loop.status = Status(
            "recording",
            2,
            10,
            57,
            True,
            19.9,
            0.014,
            0,
            "",
            "success, failure or discard ends it",
            {"agentview": SCENE},
        )
        browser.until(lambda: browser.text("state") == "RECORDING")
        keep(browser, "web_phone.png")
        browser.lift()
        browser.until(lambda: loop.hand is None and not loop.lost)
        for button in ("start", "success", "pause"):
            browser.click(f"[data-event={button}]")
        browser.until(lambda: loop.events == ["start", "success", "pause"])
        assert not browser.scrolled and browser.errors() == []


def test_the_fingers_follow_their_button_while_it_is_held(browser):
    with session(browser, PHONE) as loop:
        browser.click("#fingers")
        time.sleep(0.2)
        browser.touch("#deadman", 0.5, 0.5)
        browser.until(lambda: loop.hand is not None)
        assert loop.hand[6] == -1.0
        browser.click("#fingers")
        browser.until(lambda: loop.hand is not None and loop.hand[6] == 1.0)
        browser.until(lambda: "closed" in browser.text("fingers"))
        browser.lift()


def test_a_desk_drives_with_space_and_the_mouse(browser):
    with session(browser, DESKTOP) as loop:
        browser.key_down(" ")
        browser.until(lambda: loop.hand is not None)
        browser.drag("[data-axes=turn]", 0.0, 0.5)
        browser.until(
            lambda: loop.hand is not None and loop.hand[3] < -0.35, "dragged left, the tool tips to +y: about -x"
        )
        browser.release()
        browser.drag("[data-axes=z]", 0.5, 0.0)
        browser.until(lambda: loop.hand is not None and loop.hand[2] == pytest.approx(0.4))
        loop.status = Status(
            "recording",
            2,
            10,
            57,
            True,
            19.9,
            0.014,
            0,
            "",
            "success, failure or discard ends it",
            {"agentview": SCENE, "wrist": SCENE[::-1].copy()},
        )
        browser.until(lambda: browser.shows_picture("wrist"))
        keep(browser, "web_desktop.png")
        browser.release()
        browser.key_up(" ")
        browser.until(lambda: loop.hand is None and not loop.lost)
        assert browser.errors() == []


@pytest.mark.parametrize(
    "what", ["window.dispatchEvent(new Event('blur'))", "window.dispatchEvent(new Event('pagehide'))"]
)
def test_losing_the_focus_lets_go(browser, what):
    with session(browser, PHONE) as loop:
        browser.touch("#deadman", 0.5, 0.5)
        browser.until(lambda: loop.hand is not None)
        browser.run(what)
        browser.until(lambda: loop.hand is None)
        time.sleep(0.3)
        assert loop.hand is None and not loop.lost, "it was let go, not lost, and stays so though the finger is down"
        browser.lift()


def test_a_hidden_tab_lets_go_and_a_closed_one_is_a_lost_device(browser):
    with session(browser, PHONE) as loop:
        browser.touch("#deadman", 0.5, 0.5)
        browser.until(lambda: loop.hand is not None)
        with browser.another_tab():
            browser.until(lambda: loop.hand is None)
        browser.lift()
        browser.touch("#deadman", 0.5, 0.5)
        browser.until(lambda: loop.hand is not None)
        browser.open("about:blank")
        browser.until(lambda: "open it again" in loop.lost)


def test_a_page_that_hangs_is_lost_and_must_be_pressed_anew(browser):
    with session(browser, PHONE) as loop:
        browser.touch("#deadman", 0.5, 0.5)
        browser.until(lambda: loop.hand is not None)
        browser.run("const end = Date.now() + 700; while (Date.now() < end);")
        browser.until(lambda: loop.lost, "it said nothing")
        browser.until(lambda: "LET GO" in browser.text("deadman"))
        assert loop.hand is None
        browser.lift()
        browser.until(lambda: not loop.lost)
        browser.touch("#deadman", 0.5, 0.5)
        browser.until(lambda: loop.hand is not None)
        browser.lift()


def test_a_second_page_is_view_only_and_says_so(browser):
    with session(browser, PHONE) as loop:
        url = browser.url
        with browser.another_tab(url):
            browser.until(lambda: "View only" in browser.text("reason"))
            browser.until(lambda: browser.shows_picture("agentview"), "it sees what the other sees")
            keep(browser, "web_view_only.png")
            browser.touch("#deadman", 0.5, 0.5)
            time.sleep(0.3)
            assert loop.hand is None
            browser.lift()


def test_a_wrong_address_says_what_to_do(browser):
    with closing(WebTeleop("0")) as device:
        browser.open(device.url[:-3])
        assert "token is not the one" in browser.page_text
        browser.open(device.url.partition("?")[0])
        assert "lacks its token" in browser.page_text
