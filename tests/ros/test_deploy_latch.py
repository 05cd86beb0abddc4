"""`deploy`, as it is, beside an arm that was stopped, or that it takes home: nothing moves that nobody means."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import closing

import numpy as np
import pytest
import torch

from drivers.robot_file import load
from policies import checkpoint
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl.episodes import EpisodeStore
from robot_rl.types import Episode
from tests.ros.rig import DOWN, HOLD, MIDDLE, Rig, robot_yaml
from tests.ros.test_latch import way
from tests.terminal import Typed

pytestmark = pytest.mark.timeout(180)
CLI = ("-m", "robot_rl.cli")
WAITS = float(os.environ.get("LATCH_SECONDS", "3"))  # that a stopped arm is watched; 30 for docs/faults.md [s]
HOME = MIDDLE + [0.0, 0.25, 0.0]


@pytest.fixture
def file(tmp_path):
    return robot_yaml(tmp_path / "robot.yaml", home=[*HOME.tolist(), *DOWN.tolist()], max_steps=400)


@pytest.fixture
def policy(file, tmp_path):
    """One that knows nothing: it moves the arm a little."""
    torch.manual_seed(0)
    spec = load(file).spec()
    made = FlowConfig(horizon=16, backbone=MlpConfig(width=32, depth=1)).build(spec)
    made.fit(HOME + 0.05 * np.random.default_rng(0).normal(size=(50, 3)), 0.2 * torch.rand(50, 7).numpy() - 0.1)
    checkpoint.save(made, tmp_path / "policy.pt")
    return tmp_path / "policy.pt"


@pytest.fixture
def rig(node, file, spawn):
    process = spawn("-m", "drivers.arm_node", "--robot", file)
    rig = Rig(node, file, sources=())  # `deploy` or `collect` is the only one
    rig.process = process
    rig.until(lambda: rig.status and rig.value("sees the arm") == "True", 15, "the node sees the arm")
    yield rig
    rig.close()
    rig.judge()


@pytest.fixture
def deploy(spawn, file, policy):
    return lambda *more: spawn(*CLI, "deploy", "--robot", file, "--agent", policy, "--episodes", "0", *more)


def said(process, words):
    return re.findall(words, process.log.read_text())


def plays(rig, seconds=1.0):
    rig.until(lambda: rig.value("holder") == "policy" and not rig.stopped, 30, "the policy plays")
    time.sleep(seconds)


def test_fault_f31_deploy_waits_beside_a_stopped_arm_and_goes_on_after_a_persons_reset(rig, deploy):
    rig.position = HOME.copy()
    process = deploy()
    plays(rig)
    lease = rig.value("lease")
    assert rig.call("stop").success
    rig.until(lambda: said(process, "somebody called stop; only a person"), 5, "it says why, and what helps")
    rig.until(lambda: rig.value("rests") == "True", 3, "at rest")
    begun = len(rig.setpoints)
    time.sleep(WAITS)
    print(f"{WAITS:g} s: {len(rig.setpoints) - begun} setpoints, lease {lease} is still {rig.value('lease')}")
    assert len(rig.setpoints) == begun and rig.value("lease") == lease and process.poll() is None
    assert len(said(process, "Waiting for that")) == 1, "once"
    assert len(said(process, "episode 1: aborted after")) == 1 and not said(process, "episode 2")
    clients = dict(rig.node.get_client_names_and_types_by_node("policy_node_io", "/"))
    assert "/policy/arm" in clients and "/reset" not in clients
    rig.reset()
    plays(rig)
    assert said(process, "the arm was reset; going on") and int(rig.value("lease")) > int(lease)
    rig.call("stop")
    rig.until(lambda: len(said(process, "Waiting for that")) == 2, 5, "it waits again")
    since = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0 and time.monotonic() - since < 3


def test_fault_f31_a_restart_of_the_arms_node_is_no_reset_for_a_program_that_waits(rig, spawn, file, deploy):
    rig.call("stop")
    process = deploy()
    rig.until(lambda: said(process, "Waiting for that"), 30, "it waits")
    os.killpg(rig.process.pid, signal.SIGKILL)
    time.sleep(0.5)
    spawn("-m", "drivers.arm_node", "--robot", file)
    rig.until(lambda: "never armed" in rig.stopped, 15, "the new node")
    assert process.wait(10) == 2 and said(process, "the arm's node was started anew")
    assert not rig.setpoints and not said(process, "going on") and "never armed" in rig.stopped


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_fault_f32_deploy_ended_on_the_way_home_the_arm_has_braked(rig, deploy, sign):
    process = deploy()
    rig.until(lambda: way(rig) > 0.05, 30, "on the way home")
    assert rig.value("holder") == "homing"
    since = time.monotonic()
    os.killpg(process.pid, sign)
    time.sleep(1.0)
    braked, gone = rig.braked_since(since) - since, np.linalg.norm(rig.setpoints[-1][1] - HOME)
    print(f"{sign.name}: braked {1000 * braked:.0f} ms after it, {gone:.2f} m before home: {rig.stopped}")
    assert braked <= HOLD and gone > 0.05
    latched = sign != signal.SIGINT  # that one lets go by itself
    assert rig.value("needs reset") == str(latched)
    assert process.wait(10) == 0 if sign == signal.SIGINT else True


def test_fault_f44_one_that_hung_does_not_drive_under_the_lease_of_whoever_was_armed_after_it(rig, deploy):
    rig.position = HOME.copy()
    process = deploy()
    plays(rig)
    os.killpg(process.pid, signal.SIGSTOP)
    rig.until(lambda: rig.value("needs reset") == "True", 2, "its silence stops the arm")
    rig.until(lambda: rig.value("rests") == "True", 3, "at rest")
    rig.reset()
    rig.arm()  # whose lease it is, says nothing yet
    lease, begun = rig.value("lease"), len(rig.setpoints)
    os.killpg(process.pid, signal.SIGCONT)
    rig.until(lambda: said(process, "episode 1: aborted after"), 5, "it sees that its lease is over")
    time.sleep(0.5)
    assert way(rig, begun) < 1e-3 and rig.value("lease") == lease
    assert process.wait(10) == 2 and said(process, "somebody else took command of it: 'policy'; start this again")


@pytest.mark.parametrize("transition", ["DEACTIVATE", "ACTIVE_SHUTDOWN"])
def test_fault_f39_every_transition_of_a_playing_policy_lets_go_at_once(rig, deploy, transition):
    from geometry_msgs.msg import PoseStamped
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    rig.position = HOME.copy()
    targets: list[float] = []
    rig.node.create_subscription(PoseStamped, "policy/target_pose", lambda _: targets.append(time.monotonic()), 100)
    process = deploy()
    plays(rig)
    client = rig.node.create_client(ChangeState, "policy_node/change_state")
    rig.until(client.service_is_ready, 5, "the lifecycle")
    lease, since = rig.value("lease"), time.monotonic()
    wanted = Transition(id=getattr(Transition, f"TRANSITION_{transition}"))
    future = client.call_async(ChangeState.Request(transition=wanted))
    rig.until(lambda: "let go" in rig.stopped, 2, "the lease is over")
    held = time.monotonic() - since
    rig.until(future.done, 5, "an answer")
    answered = time.monotonic()
    assert future.result().success
    time.sleep(1.0)
    braked = rig.braked_since(since) - since
    late = [t for t in targets if t > answered]
    told = f"lease over after {1000 * held:.0f} ms, braked after {1000 * braked:.0f} ms"
    print(f"{transition}: {told}, {len(late)} targets after the answer")
    assert held <= HOLD and braked <= HOLD and not late
    assert rig.value("needs reset") == "False" and "let go" in rig.stopped and rig.value("lease") == lease
    if transition == "ACTIVE_SHUTDOWN":
        assert process.wait(10) == 0


@pytest.fixture
def demos(file, tmp_path):
    """One that ends in success."""
    spec, T = load(file).spec(), 20
    last = (np.arange(T) == T - 1).astype(np.float32)
    random = np.random.default_rng(0)
    with EpisodeStore.create(tmp_path / "demos", spec) as store:
        store.append(
            Episode(
                obs={"state": random.uniform(0, 0.4, (T + 1, 3)).astype(np.float32), "stamp/state": np.arange(T + 1.0)},
                action=random.uniform(-0.2, 0.2, (T, len(spec.action))).astype(np.float32), reward=last, score=last,
                intervened=np.zeros(T, bool), terminated=True, truncated=False, extras={}, meta={},
            )
        )  # fmt: skip
    return tmp_path / "demos"


def test_fault_f31_refine_waits_beside_a_stopped_arm_too_and_ends_at_once_when_asked(
    rig, spawn, file, policy, demos, tmp_path
):
    rig.call("stop")
    lease = rig.value("lease")
    refine = spawn(
        *CLI, "refine", "--out", tmp_path / "run", "--robot", file, "--policy", policy, "--demos", demos,
        *("--role", "actor", "--steps", 50, "--base-steps", 20, "agent:residual", "--agent.execute", 4),
    )  # fmt: skip
    rig.until(lambda: said(refine, "somebody called stop; only a person.*Waiting for that"), 60, "it says so")
    time.sleep(WAITS)
    assert rig.value("lease") == lease and not rig.setpoints and refine.poll() is None
    since = time.monotonic()
    refine.send_signal(signal.SIGINT)
    assert refine.wait(10) == 0 and time.monotonic() - since < 6, refine.log.read_text()
    assert said(refine, "ended while it waited") and not said(refine, "Traceback")


def test_fault_f31_collect_tells_the_person_at_the_device_and_begins_after_the_reset(rig, file, tmp_path):
    rig.position = HOME.copy()
    rig.call("stop")
    lease = rig.value("lease")
    with closing(Typed("collect", "--out", tmp_path / "mine", "--robot", file, "--device", "twist:stick")) as typed:
        at = typed.until("WAITING: 0 of", 60)
        typed.press("\n")
        at = typed.until("somebody called stop; only a person.*reset_arm", 20, at)
        time.sleep(1.0)
        assert rig.value("lease") == lease and not rig.setpoints
        rig.reset()
        typed.press("\n")
        at = typed.until("move to begin", 20, at)
        assert rig.value("holder") == "teleop"
        rig.call("teleop/release")  # somebody else, for it
        at = typed.until("WAITING: 0 of.*let go of it", 20, at)
        typed.press("\n")
        at = typed.until("somebody else let go of the arm", 20, at)
        typed.press("\n")
        typed.until("move to begin", 20, at)
        typed.press("q")
        assert typed.wait(20) == 0, typed.shown
