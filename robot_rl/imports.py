"""Other projects' recordings as our episodes, and ours as theirs: joins `formats/` with `sim/` and `drivers/`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from drivers import bag, robot_file
from robot_rl import outputs
from robot_rl.episodes import EpisodeStore
from robot_rl.formats import (
    aloha,
    diffusion_policy,
    guard,
    hdf5,
    lerobot,
    lerobot_writer,
    pictures,
    replay_buffer,
    robomimic,
    robosuite_hdf5,
    unreadable,
)
from robot_rl.formats.account import Account
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


@dataclass(frozen=True)
class ImportConfig:
    """What of a recording is read."""

    filter_key: str | None = None
    """of robomimic's files: the mask whose demonstrations are read, such as train; all where not given"""
    ignore_rewards: bool = False
    """read nothing of success, where its rewards are of another kind"""


def recordings(
    source: Path,
    world: WorldConfig,
    robot: Path | None = None,
    config: ImportConfig = ImportConfig(),
    account: Account | None = None,
) -> tuple[Spec, Iterator[Episode]]:
    """The Spec and the episodes of a recording; its format is found out. `world.world` may be empty.

    Raises where the format is unknown, an option means nothing to it, or the recording was made in another world than
    the one named, or with another robot than that of the YAML file `robot`. What the user would not guess is told to
    `account`, which is complete when the last episode is read.
    """
    source, account = Path(source), account if account is not None else Account()
    if not source.exists():
        raise RobotRLError(
            f"{source} does not exist; give a diffusion_policy zarr or LeRobot folder, an HDF5 file or a bag"
        )
    if not source.is_dir():
        guard.require_file(source)  # a pipe would be waited for, a device read for ever
    file = None if robot is None else robot_file.load(robot)
    if bag.is_bag(source):
        if file is None or robot is None:
            raise RobotRLError(f"{source} is a bag of topics: name the robot's YAML file with --robot")
        _require_taken(source, "a bag of topics", world, config, ())
        return file.spec(), bag.episodes(source, file, robot.name)
    spec, episodes = _dataset(source, world, config, account)
    if file is not None:
        spec.require(file.spec(), str(source), f"the robot {robot}")
    return _printable(spec, source), episodes


def _printable(spec: Spec, source: Path) -> Spec:
    """`spec` without line breaks and control codes in its names: what is printed of it writes nothing else."""

    def plain(name: str) -> str:
        return "".join(c if c.isprintable() else "?" for c in name)

    if odd := [c.name for c in spec.cameras if not c.name.isprintable()]:
        raise RobotRLError(f"{source} has cameras whose names hold control codes: {odd}; rename them")
    state, action = (tuple(replace(c, name=plain(c.name)) for c in channels) for channels in (spec.state, spec.action))
    return replace(spec, world=plain(spec.world), arm=plain(spec.arm), state=state, action=action)


def _dataset(
    source: Path, world: WorldConfig, config: ImportConfig, account: Account
) -> tuple[Spec, Iterator[Episode]]:
    if lerobot.is_dataset(source):
        return _lerobot(source, world, config, account)
    if replay_buffer.is_buffer(source):
        return _diffusion_policy(source, world, config, account)
    if aloha.is_recording(source):
        return _aloha(source, world, config, account)
    if source.is_dir() or not _is_hdf5(source):
        raise RobotRLError(unreadable.what_it_is(source))
    with hdf5.opened(source) as file:
        data = file.get("data")
        if not isinstance(data, h5py.Group):
            raise RobotRLError(f"{source} has no group 'data'; it is neither robomimic's, robosuite's nor ALOHA's")
        holds_observations = any(isinstance(demo, h5py.Group) and "obs" in demo for demo in data.values())
        own = hdf5.attribute(data, robomimic.SPEC) is not None
    # robomimic's files hold observations, and often states too; robosuite's hold simulator states only.
    if holds_observations and (own or not world.world.startswith("robosuite:")):
        return _robomimic(source, world, config, account)
    return _robosuite(source, world, config, account)


def _is_hdf5(source: Path) -> bool:
    guard.require_file(source)
    return bool(h5py.is_hdf5(source))


def _diffusion_policy(
    source: Path, world: WorldConfig, config: ImportConfig, account: Account
) -> tuple[Spec, Iterator[Episode]]:
    """A replay buffer does not say where it was recorded; the only such world here is Push-T."""
    if (own := diffusion_policy.own_spec(source)) is not None:
        _require_taken(source, "a buffer that robot-rl exported", world, config, ("cameras", "image_size"))
        _require_world(source, own, world)
        pictures.chosen([c.name for c in own.cameras], world.cameras, str(source))
        kept = [c for c in own.cameras if not world.cameras or c.name in world.cameras]
        own = replace(own, cameras=tuple(pictures.sized(c, world.image_size) for c in kept))
        return own, diffusion_policy.read_own(source, own, account)
    _require_taken(source, "a diffusion_policy zarr", world, config, ("cameras", "image_size", "max_steps"))
    if world.world not in ("", "pusht"):
        raise RobotRLError(f"{source} is a diffusion_policy zarr, which can be imported for pusht, not {world.world}")
    with closing(replace(world, world="pusht").build()) as env:
        spec = env.spec
    episodes = diffusion_policy.read(source, spec, pusht.observe, pusht.grade, account)
    return spec, _with_goal(episodes, account)


def _with_goal(episodes: Iterator[Episode], account: Account) -> Iterator[Episode]:
    """Push-T's `episodes`; where none succeeds it is said where their blocks came to rest, and where the goal is."""
    rests, best, count, won = list[np.ndarray](), 0.0, 0, False
    for episode in episodes:
        rests.append(episode.obs["state"][-1, 2:6].astype(float))
        best, count, won = max(best, float(episode.score.max())), count + 1, won or episode.success
        yield episode
    if not won and count:
        x, y, cos, sin = np.median(rests, 0)
        goal, need = pusht.GOAL, pusht.COVERAGE_OF_SUCCESS
        account.note(
            f"none of the {count} episodes covers {need:.0%} of this world's goal at ({goal[0]:.0f}, {goal[1]:.0f}) "
            f"px, {np.degrees(goal[2]):.0f} degrees: the best comes to {best * need:.0%}, and the blocks come to rest "
            f"at about ({x:.0f}, {y:.0f}) px, {np.degrees(np.arctan2(sin, cos)):.0f} degrees. They may have been "
            "recorded with another goal, or stopped short of it"
        )


def _lerobot(
    source: Path, world: WorldConfig, config: ImportConfig, account: Account
) -> tuple[Spec, Iterator[Episode]]:
    """A dataset says itself what its robot is; the cameras that are to be read are named."""
    _require_taken(source, "a LeRobot dataset", world, config, ("cameras", "image_size", "ignore_rewards"))
    dataset = lerobot.Dataset(source, account, config.ignore_rewards)
    spec = dataset.spec(world.cameras, world.image_size)
    _require_world(source, spec, world)
    if world.cameras:
        account.note(dataset.words(world.cameras))
    return spec, dataset.episodes(spec)


def _aloha(source: Path, world: WorldConfig, config: ImportConfig, account: Account) -> tuple[Spec, Iterator[Episode]]:
    _require_taken(source, "ALOHA's HDF5", world, config, ("cameras", "image_size"))
    found = aloha.Recordings(source, account, world.cameras, world.image_size)
    _require_world(source, found.spec, world)
    return found.spec, found.episodes()


def _robomimic(
    source: Path, world: WorldConfig, config: ImportConfig, account: Account
) -> tuple[Spec, Iterator[Episode]]:
    taken = ("cameras", "image_size", "filter_key", "ignore_rewards")
    _require_taken(source, "robomimic's HDF5", world, config, taken)
    spec, episodes = robomimic.read(
        source, account, world.cameras, world.image_size, config.filter_key, config.ignore_rewards
    )
    _require_world(source, spec, world)
    return spec, episodes


def _robosuite(
    source: Path, world: WorldConfig, config: ImportConfig, account: Account
) -> tuple[Spec, Iterator[Episode]]:
    """Simulator states, replayed into what is seen today."""
    taken = ("arm", "controller", "cameras", "image_size", "shadows", "max_steps", "filter_key")
    _require_taken(source, "robosuite's HDF5", world, config, taken)
    chosen = robosuite_hdf5.masked(source, config.filter_key, account)
    first = next(robosuite_hdf5.read(source, chosen))
    if len(first.arms) != 1:
        raise RobotRLError(f"{first.where} has the arms {', '.join(first.arms)}; this project drives one")
    task = f"robosuite:{first.task}"
    if world.world not in ("", task):
        raise RobotRLError(f"{source} was recorded in {task}, not {world.world}; leave --world out")
    env = replace(world, world=task, arm=world.arm or first.arms[0]).build()
    assert isinstance(env, RobosuiteEnv)
    return env.spec, _replayed(source, env, chosen)


def _replayed(source: Path, env: RobosuiteEnv, chosen: set[str] | None) -> Iterator[Episode]:
    with closing(env):
        for demo in robosuite_hdf5.read(source, chosen):
            yield robosuite_hdf5.episode(demo, env.spec, env.reset_to, env.succeeded)


def _require_world(source: Path, spec: Spec, world: WorldConfig) -> None:
    if world.world not in ("", spec.world):
        raise RobotRLError(f"{source} was recorded in {spec.world}, not {world.world}; leave --world out")


def _require_taken(source: Path, kind: str, world: WorldConfig, config: ImportConfig, taken: Sequence[str]) -> None:
    """Raise where an option is given that means nothing to this kind of recording."""
    given = {
        f.name for c in (world, config) for f in fields(c) if f.name != "world" and getattr(c, f.name) != f.default
    }
    if idle := sorted(given - {*taken}):
        named, options = (", ".join(f"--{n.replace('_', '-')}" for n in names) for names in (idle, taken))
        raise RobotRLError(
            f"{source} is {kind}, to which {named} means nothing; leave it out. Options for it: "
            f"{options or 'none but --robot'}"
        )
