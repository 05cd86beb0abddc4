"""The verb `distil`: what a refined agent learned becomes the next base, by imitating its successful episodes.

PLD (2511.00091) and SOE (2509.19292) show that this plain loop compounds: the next refinement starts from a better and
simpler policy, one that needs neither critic nor actor beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from robot_rl import fingerprints, joint, ranges, vector
from robot_rl.episodes import EpisodeStore
from robot_rl.pretrain import FREE, GROWS, PolicyConfig, PretrainConfig, pretrain
from robot_rl.progress import progress
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
    made_of: Sequence[Path] = (),
) -> Path:
    """Let the agent play until `episodes` succeeded, then imitate those and `stores`; returns the policy's file.

    In the folder `out`: `episodes`, a store of the successes, and `policy`, the run of the training; the same folder
    resumes. `about` says which agent, for `config.json`; `made_of` are its files. The start states are neither those of
    practice nor those of evaluation.
    """
    ranges.require(config)
    seed = ranges.require_value("seed", config.seed, "distil")
    about = {"stores": [str(Path(store).resolve()) for store in stores], "episodes": episodes, **about}
    with Run(out, "distil", {**about, "policy": policy, "pretrain": config}, free=FREE, grows=GROWS) as run:
        sources = [EpisodeStore.open(store) for store in stores]
        joint.require_distinct(sources)
        for source in sources:  # ranges that were seen may be others: `pretrain` joins them
            source.spec.joined(spec, f"the store {source.path}", "the agent", state_only=policy.vision is None)
        used = fingerprints.of_stores((source, len(source)) for source in sources)
        run.begin(used | fingerprints.of_files(made_of))
        _play(out / "episodes", spec, make_env, make_agent, seed, episodes, workers_)
        return pretrain(out / "policy", [*stores, out / "episodes"], policy, config, save)


def _play(
    out: Path, spec: Spec, make_env: MakeEnv, make_agent: MakePlayer, seed: int, episodes: int, workers_: int
) -> None:
    with EpisodeStore.create(out, spec) as store:
        attempt = 1 + max((e.meta["attempt"] for e in store), default=-1)
        shown = progress("distil", episodes, len(store))
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
                        shown.update()
            attempt += ROUND
            if len(store) == before:
                raise RobotRLError(f"the agent succeeded in none of {ROUND} episodes: there is nothing to distil")
        shown.close()
