"""The verbs beside a robot or its simulated stand-in: `simulate`, `check`, `deploy`; and practice on one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from drivers import check_listener, live_view, policy_node, robot_file, ros_robot, sim_robot_node
from drivers.node_process import start_ros
from policies import checkpoint
from policies import device as devices
from robot_rl import checkpoints
from robot_rl import deploy as deploying
from robot_rl.episodes import EpisodeStore
from robot_rl.realtime import RealtimeConfig
from robot_rl.screen import ScreenConfig, show_episode
from robot_rl.types import Agent, Env, RobotRLError
from sim.robosuite_env import RobosuiteEnv
from sim.robot_world import RobotWorld
from sim.worlds import WorldConfig

Flat = arg(name="")  # the fields of a config without a prefix


def simulate(robot: Path, seed: int = 0) -> None:
    """Stand in for a robot: the world of its file, simulated in real time on the robot's own topics.

    Args:
        robot: the robot's YAML file
        seed: of the world's first start; each further one counts on
    """
    file = robot_file.load(robot)
    views = tuple(c.device.partition(":")[2] for c in file.cameras.values() if c.device.startswith("sim:"))
    world = WorldConfig(file.world, file.arm, cameras=views).build()
    if not isinstance(world, RobosuiteEnv):
        raise RobotRLError(f"a robot can be simulated in a world of robosuite, not in '{file.world}'")
    sim_robot_node.run(file, RobotWorld(world), seed)


def check(robot: Path, seconds: float = 5.0) -> None:
    """Listen to all topics of a robot before anything moves, and say what is wrong and how to mend it; 1: not ready.

    Args:
        robot: the robot's YAML file
        seconds: to listen for [s]
    """
    text, ready = check_listener.run(robot_file.load(robot), seconds)
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
    """
    file = robot_file.load(robot)
    plan = deploying.Plan(agent, config, episodes, seed, execute, out)
    if error := policy_node.run(
        file, partial(deploying.load, plan, file.spec(), partial(_agent_on, device)), autostart
    ):
        raise RobotRLError(error)


def view(
    robot: Path | None = None,
    store: Path | None = None,
    episode: int = 0,
    screen: Annotated[ScreenConfig, Flat] = ScreenConfig(),
) -> None:
    """Show a robot live, or a stored episode, in rerun's viewer: cameras, poses, actions, who commands, success.

    Args:
        robot: the robot's YAML file; the process only listens to its topics, until it is stopped
        store: show an episode of this store instead
        episode: which
        screen: where it is shown
    """
    if (robot is None) == (store is None):
        raise RobotRLError("name what to show: a robot's file with --robot, or a store with --store")
    if robot is not None:
        file = robot_file.load(robot)
        live_view.run(file, screen.build(file.world), start_ros())
    if store is None:
        return
    source = EpisodeStore.open(store)
    if not 0 <= episode < len(source):
        raise RobotRLError(f"there is no episode {episode} in {store}; it holds {len(source)}, from 0 on")
    shown = screen.build(source.spec.world)
    show_episode(shown, source.spec, source[episode])
    shown.close()


def practice_on(robot: Path, policy: Path) -> Env:
    """The robot of a YAML file as the world in which the base `policy` practises."""
    file = robot_file.load(robot)
    checkpoint.load(policy).spec.require(file.spec(), f"the base {policy}", f"the robot {robot}", state_only=True)
    return ros_robot.connect(file)


def _agent_on(device: str, path: Path, execute: int | None) -> Agent:
    agent: Agent = checkpoints.load_agent(path, execute)
    for policy in {id(p): p for p in (agent.policy, getattr(agent, "base", agent).policy)}.values():
        devices.move(policy, device)
    return agent
