"""The verb `collect`: let an operator demonstrate the task, and keep what succeeded."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from robot_rl import cluster, vector, workers
from robot_rl.episodes import EpisodeStore
from robot_rl.progress import progress, told
from robot_rl.seeds import episode_seed
from robot_rl.types import Episode, RobotRLError, Spec
from robot_rl.workers import MakeEnv, MakePlayer

PATIENCE = 200  # attempts in a row without a success before giving up


def collect(
    out: Path,
    spec: Spec,
    make_env: MakeEnv,
    make_operator: MakePlayer,
    *,
    episodes: int,
    seed: int = 0,
    workers_: int = 1,
    keep_failures: bool = False,
    ray: str | None = None,
) -> Path:
    """Append demonstrations to the store `out` until it holds `episodes`; run again to go on after a stop.

    With `ray`, "auto" or an address, a Ray cluster plays them instead of the workers; the store comes out the same.
    """
    if ray is not None:
        cluster.connect(ray).shutdown()  # before anything is written
    with EpisodeStore.begun(out, spec) as store:
        attempt = 1 + max((store.read(i, images=False).meta.get("attempt", -1) for i in range(len(store))), default=-1)
        seeds = (episode_seed("collect", seed, i) for i in itertools.count(attempt))
        shown = progress("collect", episodes, len(store))
        failed_in_a_row = 0
        if ray is None:
            play = workers.episodes(make_env, make_operator, seeds, workers_)
        else:
            play = cluster.episodes(vector.Share(make_env, make_operator), seeds, ray)
        with closing(play) as played:
            while len(store) < episodes:
                episode = next(played)
                failed_in_a_row = 0 if episode.success else failed_in_a_row + 1
                if failed_in_a_row == PATIENCE:
                    raise RobotRLError(
                        f"the operator failed {PATIENCE} times in a row at {spec.world}{_with(spec)}: raise --skill, "
                        "give more time with --max-steps, or take another --arm, such as Panda"
                    )
                if episode.success or keep_failures:
                    episode.meta |= {"attempt": attempt, "actor": "operator"}
                    store.append(episode)
                    shown.update()
                attempt += 1
                shown.set_postfix_str(f"{attempt} attempts")
        shown.close()
    return Path(out)


def _with(spec: Spec) -> str:
    return f" with {spec.arm}" if spec.arm else ""


def in_words(store: EpisodeStore) -> str:
    """Of a store of an operator's, how many attempts its successes took; "": nobody counted them."""
    metas = [(e.meta, e.success) for e in (store.read(i, images=False) for i in range(len(store)))]
    counted = [(meta["attempt"], success) for meta, success in metas if meta.get("actor") == "operator"]
    if not counted:
        return ""
    attempts, successes = 1 + max(attempt for attempt, _ in counted), sum(success for _, success in counted)
    return f"operator    {successes} successes in {attempts} attempts: {successes / attempts:.0%}"


def import_all(part: Path, out: Path, spec: Spec, episodes: Iterable[Episode]) -> int:
    """Make the new store `out` of `episodes` by way of `part`, see `outputs.new`. Returns how many."""
    with EpisodeStore.create(part, spec) as store:
        for episode in told(episodes, "import"):
            store.append(episode)
        count = len(store)
    os.rename(part, out)
    return count
