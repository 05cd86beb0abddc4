"""Other projects' recordings as our episodes, and ours as theirs: joins `formats/` with `sim/` and `drivers/`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal

import h5py

from drivers import bag, robot_file
from robot_rl import outputs
from robot_rl.episodes import EpisodeStore
from robot_rl.formats import diffusion_policy, lerobot, lerobot_writer, robomimic, robosuite_hdf5
from robot_rl.types import Episode, RobotRLError, Spec
from sim import pusht
from sim.robosuite_env import RobosuiteEnv
from sim.worlds import WorldConfig

Format = Literal["robomimic", "diffusion_policy", "lerobot"]
ENDINGS: dict[str, Format] = {".hdf5": "robomimic", ".h5": "robomimic", ".zarr": "diffusion_policy", "": "lerobot"}


def export(out: Path, store: EpisodeStore, to: Format | None) -> int:
    """Write all of `store` to `out`, in the format that its name tells where none is given; returns how many."""
    to = to or ENDINGS.get(out.suffix)
    if to is None:
        raise RobotRLError(f"the name {out} tells no format; give one with --to, or end it with .hdf5 or .zarr")
    writers = {"robomimic": robomimic, "diffusion_policy": diffusion_policy, "lerobot": lerobot_writer}
    spec = store.spec
    if to != "robomimic" and (depth := [c.name for c in spec.cameras if c.depth]):
        print(f"left out, as {to} has no place for depth: {', '.join(depth)}")
        spec = replace(spec, cameras=tuple(c for c in spec.cameras if not c.depth))
    with outputs.new(out):
        return writers[to].write(out, spec, store)


def recordings(source: Path, world: WorldConfig, robot: Path | None = None) -> tuple[Spec, Iterator[Episode]]:
    """The Spec and the episodes of a recording; its format is found out. `world.world` may be empty.

    Raises where the format is unknown, or the recording was made in another world than the one named, or with another
    robot than that of the YAML file `robot`.
    """
    source = Path(source)
    if not source.exists():
        raise RobotRLError(
            f"{source} does not exist; give a diffusion_policy zarr or LeRobot folder, an HDF5 file or a bag"
        )
    file = None if robot is None else robot_file.load(robot)
    if bag.is_bag(source):
        if file is None or robot is None:
            raise RobotRLError(f"{source} is a bag of topics: name the robot's YAML file with --robot")
        return file.spec(), bag.episodes(source, file, robot.name)
    spec, episodes = _dataset(source, world)
    if file is not None:
        spec.require(file.spec(), str(source), f"the robot {robot}")
    return spec, episodes


def _dataset(source: Path, world: WorldConfig) -> tuple[Spec, Iterator[Episode]]:
    if lerobot.is_dataset(source):
        return _lerobot(source, world)
    if source.is_dir():
        return _diffusion_policy(source, world)
    if not h5py.is_hdf5(source):
        raise RobotRLError(f"{source} is neither a folder nor a whole HDF5 file; copy it again or name another")
    with h5py.File(source) as file:
        data = file.get("data")
        if data is None:
            raise RobotRLError(f"{source} has no group 'data'; it is neither robomimic's nor robosuite's")
        holds_observations = any("obs" in demo for demo in data.values())
    if holds_observations:  # robomimic's files do; robosuite's hold simulator states only
        spec, episodes = robomimic.read(source)
        if world.world not in ("", spec.world):
            raise RobotRLError(f"{source} was recorded in {spec.world}, not {world.world}; leave --world out")
        return spec, episodes
    return _robosuite(source, world)


def _diffusion_policy(source: Path, world: WorldConfig) -> tuple[Spec, Iterator[Episode]]:
    """A replay buffer does not say where it was recorded; the only such world here is Push-T."""
    if (own := diffusion_policy.own_spec(source)) is not None:
        if world.world not in ("", own.world):
            raise RobotRLError(f"{source} was exported from {own.world}, not {world.world}; leave --world out")
        return own, diffusion_policy.read_own(source, own)
    if world.world not in ("", "pusht"):
        raise RobotRLError(f"{source} is a diffusion_policy zarr, which can be imported for pusht, not {world.world}")
    with closing(replace(world, world="pusht").build()) as env:
        spec = env.spec
    return spec, diffusion_policy.read(source, spec, pusht.observe, pusht.grade)


def _lerobot(source: Path, world: WorldConfig) -> tuple[Spec, Iterator[Episode]]:
    """A dataset says itself what its robot is; the cameras that are to be read are named."""
    dataset = lerobot.Dataset(source)
    spec = dataset.spec(world.cameras)
    if world.world not in ("", spec.world):
        raise RobotRLError(f"{source} was recorded in {spec.world}, not {world.world}; leave --world out")
    if words := dataset.words(world.cameras):
        print(f"{source}: {words}")
    return spec, dataset.episodes(spec)


def _robosuite(source: Path, world: WorldConfig) -> tuple[Spec, Iterator[Episode]]:
    """Simulator states, replayed into what is seen today."""
    first = next(robosuite_hdf5.read(source))
    if len(first.arms) != 1:
        raise RobotRLError(f"{first.where} has the arms {', '.join(first.arms)}; this project drives one")
    task = f"robosuite:{first.task}"
    if world.world not in ("", task):
        raise RobotRLError(f"{source} was recorded in {task}, not {world.world}; leave --world out")
    env = replace(world, world=task, arm=world.arm or first.arms[0]).build()
    assert isinstance(env, RobosuiteEnv)
    return env.spec, _replayed(source, env)


def _replayed(source: Path, env: RobosuiteEnv) -> Iterator[Episode]:
    with closing(env):
        for demo in robosuite_hdf5.read(source):
            yield robosuite_hdf5.episode(demo, env.spec, env.reset_to, env.succeeded)
