"""Many episodes in a few processes: the same seeds give the same episodes whatever the number of workers."""

from __future__ import annotations

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import islice

import torch

from robot_rl.rollout import rollout
from robot_rl.types import Env, Episode, Player, RobotRLError

MakeEnv = Callable[[], Env]
MakePlayer = Callable[[], Player]


def episodes(
    make_env: MakeEnv, make_player: MakePlayer, seeds: Iterable[int], workers: int
) -> Generator[Episode, None, None]:
    """One episode for each seed, in their order, played without exploration by `workers` processes."""
    if workers < 1:
        raise RobotRLError(f"at least 1 worker is needed, not {workers}")
    if workers == 1:
        yield from _alone(make_env, make_player, seeds)
        return
    # Not forked: torch's and OpenGL's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _prepare, (make_env, make_player)) as pool:
        waiting, ahead = iter(seeds), deque[Future[Episode]]()
        while True:
            ahead.extend(pool.submit(_play, seed) for seed in islice(waiting, 2 * workers - len(ahead)))
            if not ahead:
                return
            try:
                yield ahead.popleft().result()
            except BrokenProcessPool as error:
                raise RobotRLError(
                    "a worker died: its own message stands above; if there is none it was killed, as for want of "
                    "memory. Use --workers 1"
                ) from error


def _alone(make_env: MakeEnv, make_player: MakePlayer, seeds: Iterable[int]) -> Iterator[Episode]:
    player = make_player()
    with closing(make_env()) as env:
        for seed in seeds:
            yield rollout(env, player, explore=False, seed=seed)


_env: Env
_player: Player


def _prepare(make_env: MakeEnv, make_player: MakePlayer) -> None:
    """In each worker, once: its own world and agent, on one thread."""
    global _env, _player
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # the first process has said it
    _env, _player = make_env(), make_player()


def _play(seed: int) -> Episode:
    return rollout(_env, _player, explore=False, seed=seed)
