"""One long trial: robot, arm node, policy, recorder, web page and a person, and a random fault every 20 s.

    python tests/benchmarks/long_trial.py AGENT --out runs/trial --minutes 30 --seed 0

`simulate`, the arm node, `deploy --teleop web:0` and the recorder are processes of their own. A stand-in for the
person calls `reset` some seconds after each stop, and nobody else does; now and then it takes over through the page.
Judged from the `setpoint` topic and `arm_status`, with the robot's limits alone: every setpoint is finite, in the box
and slow enough; a stop that shall latch does so within 1 s, and until the person's `reset` nothing moves and no lease
is given; afterwards the policy goes on; at the end all episodes that were announced are stored and load. Exit status 1
otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from drivers.messages import numbers_msg, pose_msg, pose_of, stamp_of  # noqa: E402
from drivers.robot_file import load  # noqa: E402
from robot_rl.episodes import EpisodeStore  # noqa: E402

ROBOT = ROOT / "launch/params/sim_panda_lift.yaml"
HOME = [0.46, 0.0, 0.12, 1.0, 0.0, 0.0, 0.0]
CLI = ("-m", "robot_rl.cli")
LATCHED_WITHIN = 1.0  # of a fault [s]
STILL_AFTER = 0.5  # of the stop; from then on the setpoint travels no more than `TRAVEL` [s]
TRAVEL = 0.005  # [m]
RECOVERY = 60.0  # until the policy commands again after the person's reset [s]


@dataclass
class Verdicts:
    """What went wrong, and how often what was tried."""

    wrong: list[str] = field(default_factory=list)
    tried: dict[str, list[float]] = field(default_factory=dict)  # fault: times until it was latched [s], nan: none due
    setpoints: int = 0

    def blame(self, text: str) -> None:
        print("WRONG:", text, flush=True)
        self.wrong.append(text)


class Watcher:
    """A node of this process: judges every setpoint, keeps the last status, publishes what a fault needs."""

    def __init__(self, node: Any, file: Path, verdicts: Verdicts) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseStamped, WrenchStamped
        from sensor_msgs.msg import JointState
        from std_srvs.srv import Trigger

        self.node, self.robot, self.verdicts = node, load(file), verdicts
        self.status: dict[str, str] = {}
        self.stopped, self.status_at = "", -np.inf
        self.travelled = 0.0  # of all setpoints [m]
        self.moved_at = -np.inf  # when a setpoint moved last, by the steady clock [s]
        self._last: tuple[float, np.ndarray] | None = None
        node.create_subscription(PoseStamped, "setpoint", self._judge, 100)
        node.create_subscription(DiagnosticStatus, "arm_status", self._take_status, 1)
        self.services = {name: node.create_client(Trigger, name) for name in ("stop", "reset")}
        self._kinds = {"wrench": WrenchStamped, "current_pose": PoseStamped, "objects": JointState}

    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    @property
    def latched(self) -> bool:
        return self.status.get("needs reset") == "True"

    def call(self, name: str) -> Any:
        from std_srvs.srv import Trigger

        client = self.services[name]
        if not client.wait_for_service(10.0):
            return None
        future = client.call_async(Trigger.Request())
        end = time.monotonic() + 5.0
        while not future.done() and time.monotonic() < end:
            time.sleep(0.005)
        return future.result() if future.done() else None

    def briefly(self, topic: str, kind: Any, make: Callable[[], Any], seconds: float, rate: float = 100.0) -> None:
        """One more publisher on `topic`, for a while."""
        publisher = self.node.create_publisher(kind, topic, 10)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            publisher.publish(make())
            time.sleep(1.0 / rate)
        self.node.destroy_publisher(publisher)

    def _judge(self, message: Any) -> None:
        position, turn = pose_of(message)
        stamp, limits, period = stamp_of(message.header), self.robot.limits, 1.0 / self.robot.servo_rate
        self.verdicts.setpoints += 1
        if not (np.isfinite(position).all() and np.isfinite(turn).all()):
            self.verdicts.blame(f"a setpoint is {position} {turn}")
            return
        if (position < np.array(limits.box_low) - 1e-6).any() or (position > np.array(limits.box_high) + 1e-6).any():
            self.verdicts.blame(f"a setpoint is outside the box: {position}")
        if self._last is not None:
            elapsed, way = stamp - self._last[0], float(np.linalg.norm(position - self._last[1]))
            if elapsed < 5 * period:  # else it was silent in between, and may have been armed elsewhere
                self.travelled += way
                self.moved_at = time.monotonic() if way > 0 else self.moved_at
                if way > limits.speed * max(period, elapsed + 0.2 * period) + 1e-6:
                    self.verdicts.blame(f"a setpoint moved {1000 * way:.1f} mm in {1000 * elapsed:.1f} ms")
        self._last = stamp, position

    def _take_status(self, message: Any) -> None:
        self.stopped, self.status_at = message.message, time.monotonic()
        self.status = {v.key: v.value for v in message.values}


class Processes:
    """Started by name with a log each that grows over restarts."""

    def __init__(self, out: Path) -> None:
        self._out, self.running = out, dict[str, subprocess.Popen]()
        self._commands: dict[str, tuple[object, ...]] = {}

    def start(self, name: str, *words: object) -> None:
        self._commands[name] = words or self._commands[name]
        command = [sys.executable, *map(str, self._commands[name])]
        self.running[name] = subprocess.Popen(
            command, cwd=ROOT, stdout=self.log(name).open("ab"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

    def log(self, name: str) -> Path:
        return self._out / f"{name}.log"

    def last_line(self, name: str) -> str:
        return self.log(name).read_text().strip().rpartition("\n")[2]

    def send(self, name: str, number: int) -> None:
        self.running[name].send_signal(number)

    def pause(self, name: str, seconds: float) -> None:
        self.send(name, signal.SIGSTOP)
        time.sleep(seconds)
        self.send(name, signal.SIGCONT)

    def end(self, name: str, number: int = signal.SIGINT, within: float = 30.0) -> int:
        self.send(name, number)
        try:
            return self.running[name].wait(within)
        except subprocess.TimeoutExpired:
            self.running[name].kill()
            return 999


class PageStandIn:
    """A person at the page: holds the dead-man for a while and pushes, as page.js would."""

    def __init__(self, url: str) -> None:
        place, _, self._token = url.partition("/?token=")
        self._place = place.removeprefix("http://")

    def drive(self, seconds: float, motion: list[float], cut: bool) -> None:
        """Take over, push, and let go; or be `cut` off in the middle."""
        address = f"ws://{self._place}/session?token={self._token}"
        with connect(address, origin=f"http://{self._place}", compression=None, max_size=2**22) as socket:
            socket.send(json.dumps({"say": "drive"}))
            end, seen, n = time.monotonic() + seconds, 0.0, 0
            while time.monotonic() < end:
                seen = self._newest(socket, seen)
                n += 1
                held = n > 5  # pressed after it was seen released
                socket.send(json.dumps({"say": "hand", "n": n, "seen": seen, "held": held, "motion": motion}))
                time.sleep(0.04)
            if not cut:
                socket.send(json.dumps({"say": "hand", "n": n + 1, "seen": seen, "held": False, "motion": [0.0] * 6}))
                time.sleep(0.3)

    def _newest(self, socket: Any, seen: float) -> float:
        while True:
            try:
                words = socket.recv(timeout=0.001)
            except TimeoutError:
                return seen
            if isinstance(words, str):
                seen = max(seen, float(json.loads(words).get("now", seen)))


class Trial:
    """The faults, by name; each returns whether it must end in a latched stop."""

    def __init__(self, processes: Processes, watcher: Watcher, random: np.random.Generator) -> None:
        self.processes, self.watcher, self.random = processes, watcher, random
        self.faults: dict[str, Callable[[], bool]] = {
            name.removeprefix("fault_"): getattr(self, name) for name in dir(self) if name.startswith("fault_")
        }

    def fault_stop(self) -> bool:
        self.watcher.call("stop")
        return True

    def fault_force(self) -> bool:
        kind = self.watcher._kinds["wrench"]

        def hit() -> Any:
            message = kind()
            message.header.frame_id = self.watcher.robot.base_frame
            message.wrench.force.z = 900.0
            return message

        self.watcher.briefly("wrench", kind, hit, 0.02)
        return True

    def fault_pose_nan(self) -> bool:
        bad = np.full(3, np.nan)
        frame, kind = self.watcher.robot.base_frame, self.watcher._kinds["current_pose"]
        down = np.array([1.0, 0.0, 0.0, 0.0])
        self.watcher.briefly("current_pose", kind, lambda: pose_msg(self.watcher.now(), frame, bad, down), 0.3, 500.0)
        return True

    def fault_second_writer(self) -> bool:
        kind = self.watcher._kinds["current_pose"]
        publisher = self.watcher.node.create_publisher(kind, self.watcher.robot.controller.topic, 1)
        time.sleep(1.2)
        self.watcher.node.destroy_publisher(publisher)
        return True

    def fault_policy_silent(self) -> bool:
        self.processes.pause("deploy", 0.6)
        return True

    def fault_robot_silent(self) -> bool:
        self.processes.pause("simulate", 0.7)
        return True

    def fault_arm_node_paused(self) -> bool:
        self.processes.pause("arm_node", 0.5)
        return True

    def fault_policy_killed(self) -> bool:
        self.processes.end("deploy", signal.SIGKILL)
        return True

    def fault_policy_killed_while_homing(self) -> bool:
        end = time.monotonic() + 30
        while self.watcher.status.get("holder") != "homing" or self.watcher.stopped:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return self.fault_policy_killed()

    def fault_policy_interrupted(self) -> bool:
        if (code := self.processes.end("deploy", signal.SIGINT)) != 0:
            self.watcher.verdicts.blame(f"deploy ended with {code} after Ctrl-C")
        self.processes.start("deploy")
        return False

    def fault_recorder_killed(self) -> bool:
        self.processes.end("recorder", signal.SIGKILL)
        self.processes.start("recorder")
        return False

    def fault_arm_node_killed(self) -> bool:
        self.processes.end("arm_node", signal.SIGKILL)
        time.sleep(1.0)
        self.processes.start("arm_node")
        return False

    def fault_tracker_of_the_future(self) -> bool:
        ahead = float(self.random.choice([0.3, 1.0, 3600.0]))
        names = ["cube_pos_x", "cube_pos_y", "cube_pos_z"]
        kind, values = self.watcher._kinds["objects"], np.zeros(3)
        self.watcher.briefly("objects", kind, lambda: numbers_msg(self.watcher.now() + ahead, names, values), 0.01)
        return False

    def fault_person_takes_over(self) -> bool:
        self._person(cut=False)
        return False

    def fault_page_cut_while_held(self) -> bool:
        self._person(cut=True)
        return False

    def _person(self, cut: bool) -> None:
        urls = re.findall(r"open (http\S+)", self.processes.log("deploy").read_text())
        if not urls:
            return
        motion = self.random.uniform(-0.5, 0.5, 6).tolist()
        try:
            PageStandIn(urls[-1]).drive(2.0, motion, cut)
        except (OSError, WebSocketException) as error:  # the page is between two sessions
            print(f"  the page was not there: {error}", flush=True)


def latched(watcher: Watcher, name: str) -> float:
    """Wait for the latch; how long it took [s], inf: it did not come."""
    begin = time.monotonic()
    while time.monotonic() < begin + LATCHED_WITHIN + 0.3:  # and the status' period
        if watcher.latched and watcher.status_at > begin:
            return time.monotonic() - begin
        time.sleep(0.01)
    watcher.verdicts.blame(f"{name}: not latched after {LATCHED_WITHIN} s: '{watcher.stopped}' {watcher.status}")
    return np.inf


def stays(watcher: Watcher, name: str, seconds: float) -> None:
    """Nothing moves, no lease is given, the latch holds."""
    time.sleep(STILL_AFTER)
    lease, travelled, reason = watcher.status.get("lease"), watcher.travelled, watcher.stopped
    time.sleep(seconds)
    if (way := watcher.travelled - travelled) > TRAVEL:
        watcher.verdicts.blame(f"{name}: the setpoint travelled {1000 * way:.1f} mm while it was stopped: {reason}")
    if not watcher.latched or watcher.status.get("lease") != lease:
        watcher.verdicts.blame(f"{name}: the stop did not hold: '{reason}', now '{watcher.stopped}' {watcher.status}")


def recover(trial: Trial, name: str) -> None:
    """The person resets, until it is accepted, and starts a policy that ended; then it commands again."""
    watcher, processes = trial.watcher, trial.processes
    end, answer = time.monotonic() + RECOVERY, None
    while time.monotonic() < end:
        if processes.running["deploy"].poll() is not None:
            print("  the person starts deploy again; it said:", processes.last_line("deploy"), flush=True)
            processes.start("deploy")
        if watcher.latched:
            answer = watcher.call("reset")
        elif not watcher.stopped and watcher.status.get("holder") in ("policy", "homing"):
            return
        time.sleep(0.2)
    words = answer.message if answer is not None else "no answer of reset"
    watcher.verdicts.blame(f"{name}: not recovered within {RECOVERY:.0f} s: '{watcher.stopped}'; {words}")


def run(trial: Trial, minutes: float, every: float) -> None:
    """A fault every so often, each with its judgement."""
    watcher, random = trial.watcher, trial.random
    recover(trial, "begin")
    end, due = time.monotonic() + 60 * minutes, time.monotonic()
    while time.monotonic() < end:
        due = max(due + every, time.monotonic())
        name = str(random.choice(sorted(trial.faults)))
        moving = time.monotonic() + 10.0
        while time.monotonic() > watcher.moved_at + 0.1 and time.monotonic() < moving:
            time.sleep(0.01)  # who has a lease and has said nothing yet has nothing to fall silent with
        print(f"{name}: while {watcher.status.get('holder')} commands", flush=True)
        must = trial.faults[name]()
        took = latched(watcher, name) if must else np.nan
        if must and np.isfinite(took):
            stays(watcher, name, random.uniform(2, 5))
        watcher.verdicts.tried.setdefault(name, []).append(took)
        recover(trial, name)
        time.sleep(max(due - time.monotonic(), 0.0))


def nothing_lost(processes: Processes, stores: dict[str, Path], verdicts: Verdicts) -> None:
    """Every episode that was announced is there, and loads."""
    announced = len(re.findall(r"^episode \d+:", processes.log("deploy").read_text(), re.MULTILINE))
    for name, path in stores.items():
        store = EpisodeStore.open(path)
        steps = sum(len(store[i]) for i in range(len(store)))
        print(f"{name}: {len(store)} episodes, {steps} steps, all load")
        if name == "deploy" and len(store) < announced:
            verdicts.blame(f"{announced} episodes were announced, {len(store)} are stored")


def main() -> int:
    """Start all, try all, tell all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for logs and stores")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=20.0, help="a fault so often [s]")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True)
    file = out / "robot.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(ROBOT.read_text()), "home": HOME}))
    os.environ.update(ROS_DOMAIN_ID="79", ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", PYTHONPATH=str(ROOT))
    os.environ.update(OMP_NUM_THREADS="1", MUJOCO_GL="egl")
    stores = {"deploy": out / "played", "recorder": out / "recorded"}
    processes, verdicts = Processes(out), Verdicts()
    processes.start("simulate", *CLI, "simulate", "--robot", file)
    processes.start("arm_node", "-m", "drivers.arm_node", "--robot", file)
    processes.start("recorder", "-m", "drivers.recorder", "--robot", file, "--out", stores["recorder"])
    told = ("--episodes", 0, "--seed", given.seed, "--out", stores["deploy"], "--teleop", "web:0")
    processes.start("deploy", *CLI, "deploy", "--robot", file, "--agent", given.agent.resolve(), *told)
    try:
        watched(file, verdicts, processes, given)
    finally:
        codes = {name: processes.end(name) for name in ("deploy", "recorder", "arm_node", "simulate")}
    print("ended with", codes)
    if any(codes.values()):
        verdicts.blame(f"not every process ended with 0: {codes}")
    nothing_lost(processes, stores, verdicts)
    for name, times in sorted(verdicts.tried.items()):
        due = [t for t in times if not np.isnan(t)]
        print(f"{name}: {len(times)} times" + (f", latched within {max(due):.2f} s at most" if due else ""))
    print(f"{verdicts.setpoints} setpoints judged, {len(verdicts.wrong)} wrong")
    return 1 if verdicts.wrong else 0


def watched(file: Path, verdicts: Verdicts, processes: Processes, given: argparse.Namespace) -> None:
    """The trial, with a spinning node beside it."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    rclpy.init()
    node = rclpy.create_node("trial_watcher")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        watcher = Watcher(node, file, verdicts)
        run(Trial(processes, watcher, np.random.default_rng(given.seed)), given.minutes, given.every)
    finally:
        executor.shutdown()
        thread.join(5)
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
