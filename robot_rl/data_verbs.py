"""The verbs about data: `collect`, `import`, `export`, `inspect`, `view`."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from drivers import live_view, robot_file
from drivers.node_process import start_ros
from drivers.session import Wanted
from drivers.web_tls import WebConfig, refuse_unused
from robot_rl import collect as collecting
from robot_rl import imports, outputs, start
from robot_rl import inspect as inspecting
from robot_rl.episodes import GIB, EpisodeStore
from robot_rl.formats.account import Account
from robot_rl.imports import ImportConfig
from robot_rl.robot_verbs import demonstrate
from robot_rl.screen import ScreenConfig, show_episode
from robot_rl.types import RobotRLError, Spec
from sim import worlds
from sim.worlds import WorldConfig

Flat = arg(name="")  # the fields of a config without a prefix


def collect(
    out: Path,
    world: Annotated[WorldConfig, Flat] = WorldConfig(),
    episodes: int = 50,
    skill: float = 0.8,
    seed: int = 0,
    workers: int = 2,
    keep_failures: bool = False,
    ray: str | None = None,
    device: str | None = None,
    robot: Path | None = None,
    free_gib: float = 1.0,
    web: WebConfig = WebConfig(),
) -> None:
    """Let the scripted operator, or with --device a person, demonstrate a task; run again with the same store to go on.

    Args:
        out: the store of episodes
        world: where to demonstrate
        episodes: how many the store shall hold at the end
        skill: of the operator, 0 (clumsy) to 1 (fast and clean)
        seed: of start states and operator
        workers: processes that play episodes
        keep_failures: also keep attempts that did not succeed
        ray: a Ray cluster that plays instead: auto, or HOST:PORT
        device: a person's: keyboard, gamepad, spacemouse, joy:TOPIC, twist:TOPIC, leader:TOPIC, web;
            see docs/teleop.md
        robot: demonstrate on the robot of this YAML file, or on its simulated stand-in, instead of in the world
        free_gib: GiB that stay free on the store's disk, with a person
        web: how the web page is served, where it is the device
    """
    if device is not None:
        demonstrate(out, world, robot, device, Wanted(episodes, free_gib * GIB, seed, keep_failures), web)
        print(inspecting.inspect(out))
        return
    if robot is not None:
        raise RobotRLError("on a robot a person demonstrates: say with which --device")
    refuse_unused(web, device)
    spec = spec_of(world)
    operator = partial(worlds.operator_for, spec, skill)
    operator()  # a world without an operator is refused here, not in a worker
    collecting.collect(
        out,
        spec,
        world.build,
        operator,
        episodes=episodes,
        seed=seed,
        workers_=workers,
        keep_failures=keep_failures,
        ray=ray,
    )
    with_attempts = collecting.in_words(EpisodeStore.open(out))
    print(inspecting.inspect(out) + (f"\n{with_attempts}" if with_attempts else ""))


def import_(
    source: Path,
    out: Path,
    world: Annotated[WorldConfig, Flat] = WorldConfig(world=""),
    config: Annotated[ImportConfig, Flat] = ImportConfig(),
    robot: Path | None = None,
) -> None:
    """Bring recordings into a store: LeRobot, diffusion_policy zarrs, robomimic's, robosuite's or ALOHA's HDF5, bags.

    Args:
        source: the folder of the dataset or of the zarr (or its zip), the HDF5 file, or the bag
        out: the store to make
        world: where it was recorded, where the recording does not say: pusht for a zarr; a camera takes images along
        config: what of it is read
        robot: the YAML file of the robot whose topics a bag holds; another recording must be of just that robot
    """
    account = Account()
    with outputs.new(out) as part:
        spec, episodes = imports.recordings(source, world, robot, config, account)
        count = collecting.import_all(part, out, spec, episodes)
    for line in account.lines():
        print(start.plain(f"{source}: {line}"))
    print(f"imported {count} episodes\n{inspecting.inspect(out)}")


def export(store: Path, out: Path, to: imports.Format | None = None) -> None:
    """Write a store as a robomimic HDF5 file, a LeRobot v3 dataset or a diffusion_policy zarr.

    Args:
        store: the store of episodes
        out: the file or folder to make
        to: its format; where not given by its name: *.hdf5 or *.h5 for robomimic, *.zarr for diffusion_policy,
            a folder without an ending for lerobot; another ending is refused
    """
    source = EpisodeStore.open(store)
    print(f"exported {imports.export(out, source, to)} episodes to {out}")


def inspect(store: Path, out: Path | None = None, repair: bool = False, video_of: int = 0) -> None:
    """Say what is in a store of episodes, and what should worry you before training on it.

    Args:
        store: the store of episodes
        out: folder for plots and a video
        repair: mend what a killed writer or a failing disk left; originals are kept
        video_of: the episode that the video shows
    """
    if out is not None:
        outputs.require_no_run(out)
    with nullcontext() if out is None else outputs.folder(out):
        print(inspecting.inspect(store, out, repair, video_of))


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
        with nullcontext() if screen.out is None else outputs.file(screen.out):
            live_view.run(file, screen.build(file.world), start_ros())
    if store is None:
        return
    source = EpisodeStore.open(store)
    if not 0 <= episode < len(source):
        raise RobotRLError(f"there is no episode {episode} in {store}; it holds {len(source)}, from 0 on")
    with nullcontext() if screen.out is None else outputs.file(screen.out):
        shown = screen.build(source.spec.world)
        show_episode(shown, source.spec, source[episode])
        shown.close()


def spec_of(world: WorldConfig) -> Spec:
    """What is seen and done in `world`."""
    env = world.build()
    env.close()
    return env.spec
