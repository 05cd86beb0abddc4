"""The verbs beside a robot or its simulated stand-in: `simulate`, `check`, `deploy`; and practice on one."""

from __future__ import annotations

import atexit
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from drivers import (
    check_device,
    check_listener,
    policy_node,
    robot_file,
    ros_robot,
    sim_robot_node,
)
from drivers.assisted import Assisted, Corrector, Person, SteadyClock
from drivers.devices import open_controls
from drivers.node_process import start_ros
from drivers.robot_file import RobotFile
from drivers.session import Collector, Robot, Wanted
from drivers.web_tls import WebConfig, refuse_unused
from policies import device as devices
from robot_rl import checkpoints
from robot_rl import deploy as deploying
from robot_rl.episodes import EpisodeStore
from robot_rl.realtime import RealtimeConfig
from robot_rl.types import Agent, Env, RobotRLError, Spec
from sim.robot_world import RobotView, RobotWorld, robosuite_world
from sim.worlds import WorldConfig

Flat = arg(name="")  # the fields of a config without a prefix
PERSONS = 1200  # steps that a person has where no limit is given; a minute at 20 Hz


def simulate(robot: Path, seed: int = 0) -> None:
    """Stand in for a robot: the world of its file, simulated in real time on the robot's own topics.

    Args:
        robot: the robot's YAML file
        seed: of the world's first start; each further one counts on
    """
    file = robot_file.load(robot)
    shadows = any(camera.shadows for camera in file.cameras.values())
    config = WorldConfig(file.world, file.arm, shadows=shadows)
    sim_robot_node.run(file, RobotWorld(robosuite_world(config)), seed, partial(RobotView, config))


def check(
    robot: Path | None = None, device: str | None = None, seconds: float = 5.0, web: WebConfig = WebConfig()
) -> None:
    """Say what is wrong with a robot or a device before anything moves, and how to mend it; 1: not ready.

    Args:
        robot: the robot's YAML file: all its topics are listened to
        device: try this device of a person instead: keyboard, gamepad, ...; a leader arm needs the robot too
        seconds: to listen for [s]; a device as long at rest, and as long again in use
        web: how the web page is served, where it is the device
    """
    refuse_unused(web, device)
    if device is None and robot is None:
        raise RobotRLError("say what to check: --robot FILE, or --device NAME")
    file = None if robot is None else robot_file.load(robot)
    if device is not None:
        with closing(WorldConfig().build()) as world:
            spec = world.spec if file is None else file.spec()
        with closing(open_controls(device, spec, file, web)) as controls:
            text, ready = check_device.run(controls.device, seconds)
    else:
        assert file is not None
        text, ready = check_listener.run(file, seconds)
    print(text)
    if not ready:
        raise SystemExit(1)


def deploy(
    robot: Path,
    agent: Path,
    config: Annotated[RealtimeConfig, Flat] = RealtimeConfig(),
    episodes: int = 1,
    seed: int | None = None,
    execute: int | None = None,
    device: str = "cpu",
    out: Path | None = None,
    autostart: bool = True,
    teleop: str | None = None,
    web: WebConfig = WebConfig(),
) -> None:
    """Play a policy or a refined agent on a robot, or on its simulated stand-in: the lifecycle node policy_node.

    Args:
        robot: the robot's YAML file
        agent: file of a policy or an agent, or the folder of the run that made it
        config: how chunks are played by the clock
        episodes: to play; 0: until it is stopped
        seed: of the first start, where the world is simulated, and of the noise; further ones count on
        execute: actions of each chunk that a bare policy executes; 8 where not given
        device: where the policy samples: cpu, cuda, cuda:1
        out: store for the episodes
        autostart: configure and activate by itself; else the lifecycle's services do
        teleop: a person's device, who may take over at any moment: keyboard, gamepad, ...; see docs/teleop.md
        web: how the web page is served, where it is that device
    """
    refuse_unused(web, teleop)
    file = robot_file.load(robot)
    plan = deploying.Plan(agent, config, episodes, seed, execute, out)
    load = partial(deploying.load, plan, file.spec(), partial(_agent_on, device))
    with ExitStack() as stack:
        aside = partial(_aside, stack, teleop, file.spec(), file, web) if teleop else lambda: None
        if error := policy_node.run(file, load, autostart, aside):
            raise RobotRLError(error)


def demonstrate(
    out: Path, world: WorldConfig, robot: Path | None, device: str, wanted: Wanted, web: WebConfig = WebConfig()
) -> None:
    """A person demonstrates with `device`, in a simulated `world` in real time or on the `robot` of a YAML file."""
    limit, file, asked = PERSONS if world.max_steps is None else world.max_steps, None, lambda: False
    with ExitStack() as stack:
        if robot is None:
            env: Robot = stack.enter_context(closing(Assisted(replace(world, max_steps=limit).build(), SteadyClock())))
        else:
            file = replace(robot_file.load(robot), max_steps=limit)
            asked = start_ros()
            env = stack.enter_context(ros_robot.driven(file, "teleop", asked))
        controls = stack.enter_context(closing(open_controls(device, env.spec, file, web)))
        store = stack.enter_context(EpisodeStore.begun(out, env.spec))
        person = Person(controls.device, env.spec, None if file is None else file.limits)
        Collector(env, person, controls, store, SteadyClock(), wanted, asked).run()


def practice_on(robot: Path, policy: Path, teleop: str | None = None, web: WebConfig = WebConfig()) -> Env:
    """The robot of a YAML file as the world in which the base `policy` practises; a person may take over."""
    file = robot_file.load(robot)
    base, names = checkpoints.load_base(policy), (f"the base {policy}", f"the robot {robot}")
    base.spec.require(file.spec(), *names, state_only=not base.sees_images, any_limit=True)
    if teleop is None:
        return ros_robot.connect(file)
    stack = ExitStack()  # until this process ends
    atexit.register(stack.close)
    return ros_robot.connect(file, lambda: _aside(stack, teleop, file.spec(), file, web))


def practice_in(world: WorldConfig, teleop: str, web: WebConfig = WebConfig()) -> Env:
    """A simulated world in real time in which a person may take over."""
    env, stack = world.build(), ExitStack()
    atexit.register(stack.close)
    aside = _aside(stack, teleop, env.spec, web=web)
    aside.env = assisted = Assisted(env, SteadyClock(), aside=aside)
    return assisted


def _aside(
    stack: ExitStack, teleop: str, spec: Spec, robot: RobotFile | None = None, web: WebConfig = WebConfig()
) -> Corrector:
    """The person at the device `teleop`, which `stack` closes."""
    controls = stack.enter_context(closing(open_controls(teleop, spec, robot, web)))
    return Corrector(Person(controls.device, spec, None if robot is None else robot.limits), controls)


def _agent_on(device: str, path: Path, execute: int | None) -> Agent:
    agent: Agent = checkpoints.load_agent(path, execute)
    for policy in {id(p): p for p in (agent.policy, getattr(agent, "base", agent).policy)}.values():
        devices.move(policy, device)
    return agent
