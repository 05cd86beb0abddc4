"""Chromium without a window, for tests: looks at the page and touches it, by selenium and the browser's protocol."""

from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np

DESKTOP, PHONE = (1280, 800, False), (390, 844, True)
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars")


@contextmanager
def open_browser():
    """A browser."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """One window; `query` is a CSS selector, places in an element are shares of its width and height."""

    def __init__(self, driver):
        self._driver = driver
        self._fingers = {}  # by query: where it is [pixels]

    # ---- pages

    def open(self, url):
        self._fingers.clear()
        self._driver.get(url)

    def resize(self, viewport):
        width, height, mobile = viewport
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        touch = {"enabled": mobile, "maxTouchPoints": 5 if mobile else 1}
        self._driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", touch)

    @contextmanager
    def another_tab(self, url="about:blank"):
        """In front of this one, until the end."""
        first, fingers = self._driver.current_window_handle, self._fingers
        self._driver.switch_to.new_window("tab")
        self._fingers = {}
        self.resize(PHONE)
        self._driver.get(url)
        yield
        self._driver.close()
        self._driver.switch_to.window(first)
        self._fingers = fingers

    @property
    def url(self):
        return self._driver.current_url

    @property
    def page_text(self):
        return self.run("return document.body.innerText")

    # ---- what is seen

    def run(self, script, *arguments):
        return self._driver.execute_script(script, *arguments)

    def text(self, name):
        return self.run("return document.getElementById(arguments[0]).innerText", name)

    @property
    def role(self):
        return self.run("return document.body.dataset.role")

    @property
    def grip(self):
        return self.run("return document.body.dataset.grip")

    @property
    def scrolled(self):
        return bool(self.run("return window.scrollX || window.scrollY || document.body.scrollTop"))

    def shows_picture(self, camera):
        """Its canvas has pixels that differ."""
        script = """
            const figure = [...document.querySelectorAll("figure")].find(f => f.innerText === arguments[0]);
            const canvas = figure?.querySelector("canvas");
            if (!canvas?.width) return [];
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return [...data.slice(0, 400000)];"""
        return np.ptp(self.run(script, camera) or [0]) > 100

    def screenshot(self, path):
        self._driver.save_screenshot(str(path))

    def errors(self):
        return [entry for entry in self._driver.get_log("browser") if entry["level"] == "SEVERE"]

    @staticmethod
    def until(true, what="it never came true", within=8.0):
        end = time.monotonic() + within
        while not true():
            assert time.monotonic() < end, what
            time.sleep(0.02)

    # ---- hands

    def _place(self, query, across, down):
        box = self.run("return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", query)
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def _touches(self, kind):
        points = [{"x": x, "y": y, "id": number} for number, x, y in self._fingers.values()]
        self._driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def touch(self, query, across, down):
        """Put a finger there, or move it there."""
        known = self._fingers.get(query)
        number = known[0] if known else 1 + max((n for n, _, _ in self._fingers.values()), default=0)
        self._fingers[query] = (number, *self._place(query, across, down))
        self._touches("touchMove" if known else "touchStart")

    def lift(self):
        """All fingers."""
        if self._fingers:
            self._fingers.clear()
            self._touches("touchEnd")

    def click(self, query):
        self.run("document.querySelector(arguments[0]).click()", query)

    def _mouse(self, kind, x, y, buttons=1):
        event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1}
        self._driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
        self._at = x, y

    def drag(self, query, across, down):
        """With the mouse, from an element's middle to there, and stay."""
        self._mouse("mousePressed", *self._place(query, 0.5, 0.5))
        self._mouse("mouseMoved", *self._place(query, across, down))

    def release(self):
        self._mouse("mouseReleased", *self._at, buttons=0)

    def _key(self, kind, key):
        event = {"type": kind, "key": key, "code": "Space" if key == " " else f"Key{key.upper()}"}
        self._driver.execute_cdp_cmd("Input.dispatchKeyEvent", event)

    def key_down(self, key):
        self._key("rawKeyDown", key)

    def key_up(self, key):
        self._key("keyUp", key)
