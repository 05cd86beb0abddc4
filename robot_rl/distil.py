"""The verb `distil`: what a refined agent learned becomes the next base, by imitating its successful episodes.

PLD (2511.00091) and SOE (2509.19292) show that this plain loop compounds: the next refinement starts from a better and
simpler policy, one that needs neither critic nor actor beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robot_rl import vector
from robot_rl.episodes import EpisodeStore
from robot_rl.pretrain import PolicyConfig, PretrainConfig, pretrain
from robot_rl.runs import Run
from robot_rl.seeds import episode_seed
from robot_rl.types import RobotRLError, Spec
from robot_rl.workers import MakeEnv, MakePlayer

ROUND = 100  # attempts between looks at how many succeeded


def distil(
    out: Path,
    stores: Sequence[Path],
    spec: Spec,
    make_env: MakeEnv,
    make_agent: MakePlayer,
    policy: PolicyConfig,
    config: PretrainConfig,
    save: Callable[[Any, Path], None],
    about: dict[str, Any],
    *,
    episodes: int,
    workers_: int = 1,
) -> Path:
    """Let the agent play until `episodes` succeeded, then imitate those and `stores`; returns the policy's file.

    In the folder `out`: `episodes`, a store of the successes, and `policy`, the run of the training; the same folder
    resumes. `about` says which agent, for `config.json`. The start states are neither those of practice nor those of
    evaluation.
    """
    about = {"stores": [str(Path(store).resolve()) for store in stores], "episodes": episodes, **about}
    Run(out, "distil", {**about, "policy": policy, "pretrain": config})  # refuses a folder of another distillation
    _play(out / "episodes", spec, make_env, make_agent, config.seed, episodes, workers_)
    return pretrain(out / "policy", [*stores, out / "episodes"], policy, config, save)


def _play(
    out: Path, spec: Spec, make_env: MakeEnv, make_agent: MakePlayer, seed: int, episodes: int, workers_: int
) -> None:
    with EpisodeStore.create(out, spec) as store:
        attempt = 1 + max((e.meta["attempt"] for e in store), default=-1)
        progress = tqdm(total=episodes, initial=len(store), desc="distil", disable=None)
        while len(store) < episodes:
            before = len(store)
            seeds = [episode_seed("distil", seed, attempt + i) for i in range(ROUND)]
            with closing(vector.episodes(make_env, make_agent, seeds, workers_)) as played:
                for i, episode in enumerate(played):
                    if len(store) == episodes:
                        break
                    if episode.success:
                        episode.meta |= {"attempt": attempt + i, "actor": "agent"}
                        episode.extras = {}  # what it remembered to learn by is of no use to its successor
                        store.append(episode)
                        progress.update()
            attempt += ROUND
            if len(store) == before:
                raise RobotRLError(f"the agent succeeded in none of {ROUND} episodes: there is nothing to distil")
        progress.close()
