"""The whole path through the web page, in a real browser: episodes on the MuJoCo arm over ROS 2, and a policy of them.

    python tests/benchmarks/web_session.py --out FOLDER [--robot launch/params/sim_panda_lift_cameras.yaml] [--age 0.8]

`robot-rl simulate`, the arm's node and `robot-rl collect --device web` are processes of their own; Chromium (Debian's
chromium and chromium-driver) opens the page as a phone, holds the dead-man, drags the pads, works the fingers and marks
success, failure, success. Then `inspect` and 20 steps of `pretrain`. On a machine that is shared `--age` lets
observations be older [s]; where the page was silent for longer than the device allows, it is pressed anew, and counted.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from drivers.robot_file import load  # noqa: E402
from robot_rl.episodes import EpisodeStore  # noqa: E402
from tests.browser import DESKTOP, PHONE, Browser, open_browser  # noqa: E402

CLI = ("-m", "robot_rl.cli")
MARKS = ("success", "failure", "success")
DRIVES = (
    ("[data-axes=move]", 0.5, 0.05),
    ("[data-axes=z]", 0.5, 0.9),
    ("[data-axes=move]", 0.1, 0.5),
)  # one an episode
SECONDS = 3.0  # of motion in each


class Processes:
    """Started together, with a log each; all are ended together."""

    def __init__(self, out: Path) -> None:
        self._out, self._all = out, []

    def start(self, name: str, *arguments: object) -> Path:
        """Its log."""
        log = self._out / f"{name}.log"
        command = [sys.executable, *map(str, arguments)]
        self._all.append(subprocess.Popen(command, cwd=ROOT, stdout=log.open("wb"), stderr=subprocess.STDOUT))
        return log

    def wait(self, seconds: float) -> int:
        """For the last one; its exit status."""
        return self._all[-1].wait(seconds)

    def end(self) -> None:
        for process in reversed(self._all):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._all:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def until_said(log: Path, pattern: str, within: float) -> re.Match[str]:
    """The first match in a log."""
    end = time.monotonic() + within
    while not (found := re.search(pattern, log.read_text())):
        if time.monotonic() > end:
            raise SystemExit(f"{log.name} never said {pattern!r}:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
    return found


def start_episode(browser: Browser) -> None:
    """Press start until it runs: on a busy machine the arm's node may say no at first."""
    for _ in range(10):
        browser.click("[data-event=start]")
        end = time.monotonic() + 15
        while time.monotonic() < end:
            if browser.text("state") == "RECORDING" and "move to begin" in browser.text("message"):
                return
            time.sleep(0.1)
    raise SystemExit(f"no episode began: {browser.text('message')}")


def fresh(browser: Browser) -> bool:
    """The arm's readings come; before the simulated robot stands there are none."""
    age = browser.text("age")
    return age.isdecimal() and int(age) < 400


def hold(browser: Browser, drive: tuple[str, float, float]) -> None:
    """The dead-man, until it counts, then the pad."""
    browser.touch("#deadman", 0.5, 0.5)
    end = time.monotonic() + 1.0
    while browser.grip != "held" and time.monotonic() < end:
        time.sleep(0.05)
    browser.touch(*drive)


def episode(browser: Browser, number: int, shot: Path | None) -> int:
    """One of them: move, close the fingers, move, mark. How often the dead-man had to be pressed anew."""
    start_episode(browser)
    anew, moved, closed = 0, 0.0, False
    hold(browser, DRIVES[number])
    while moved < SECONDS:
        time.sleep(0.1)
        if browser.text("state") != "RECORDING":
            raise SystemExit(f"the episode ended: {browser.text('message')}")
        if browser.grip == "held":
            moved += 0.1
        else:
            anew += 1
            browser.lift()
            time.sleep(0.3)
            hold(browser, DRIVES[number])
        if moved > SECONDS / 2 and not closed and browser.grip == "held":
            browser.click("#fingers")
            closed = True
            if shot:
                browser.screenshot(shot)
    browser.lift()
    time.sleep(0.3)
    browser.click(f"[data-event={MARKS[number]}]")
    if number + 1 < len(MARKS):  # after the last one the session is over, and the page with it
        browser.until(lambda: browser.text("episodes").startswith(f"{number + 1} /"), "it was not stored", 30)
    else:
        browser.until(lambda: "over" in browser.text("reason"), "the session did not end", 30)
    return anew


def drive_all(url: str, out: Path, cameras: list[str]) -> None:
    """All episodes through the page at `url`, once it shows the pictures of all `cameras`."""
    with open_browser() as browser:
        browser.resize(PHONE)
        browser.open(url)
        browser.until(lambda: browser.role == "driver" and browser.text("state") == "WAITING", "the page", 60)
        browser.until(lambda: fresh(browser), "no reading of the arm came", 400)
        for camera in cameras:
            browser.until(partial(browser.shows_picture, camera), f"no picture of '{camera}'", 60)
        browser.resize(DESKTOP)
        time.sleep(0.5)
        browser.screenshot(out / "desktop.png")
        browser.resize(PHONE)
        for number, mark in enumerate(MARKS):
            anew = episode(browser, number, out / "phone.png" if number == 0 else None)
            print(f"episode {number}: {mark}, pressed anew {anew} times; the page says: {browser.text('message')}")


def run(*arguments: object) -> None:
    """A verb; its output is this script's."""
    print("$ robot-rl", *arguments, flush=True)
    subprocess.run([sys.executable, *CLI, *map(str, arguments)], cwd=ROOT, check=True)


def tell(store: Path) -> None:
    """What was recorded."""
    for number, kept in enumerate(EpisodeStore.open(store)):
        moved = kept.obs["state"][-1, :3] - kept.obs["state"][0, :3]
        grips = sorted(set(np.sign(kept.action[:, -1]).tolist()))
        keys = {k: kept.meta.get(k) for k in ("mark", "device", "idle", "late")}
        print(f"episode {number}: {len(kept)} steps, the tool moved {moved.round(3)} m, fingers {grips}, {keys}")


def main() -> None:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--robot", type=Path, default=ROOT / "launch/params/sim_panda_lift_cameras.yaml")
    parser.add_argument("--age", type=float, default=0.2)
    given = parser.parse_args()
    out, store, robot = given.out.resolve(), given.out.resolve() / "demos", given.out.resolve() / "robot.yaml"
    out.mkdir(parents=True)
    robot.write_text(given.robot.read_text().replace("  lead: 0.2\n", f"  lead: 0.2\n  age: {given.age}\n"))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    processes = Processes(out)
    try:
        processes.start("simulate", *CLI, "simulate", "--robot", robot)
        processes.start("arm", "-m", "drivers.arm_node", "--robot", robot)
        told = ("--device", "web:0", "--episodes", len(MARKS), "--max-steps", 1200, "--keep-failures")
        log = processes.start("collect", *CLI, "collect", "--out", store, "--robot", robot, *told)
        drive_all(until_said(log, r"open (http\S+)", 400)[1], out, list(load(robot).cameras))
        print("collect ended with", processes.wait(60))
    finally:
        processes.end()
    tell(store)
    run("inspect", "--store", store, "--out", out / "plots")
    run("pretrain", "--out", out / "base", "--store", store, "--steps", 20)


if __name__ == "__main__":
    main()
