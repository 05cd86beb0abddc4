"""Processes that play: started once, watched, and replaced when they die or hang. Nothing is lost or doubled by that.

The same seeds give the same episodes whatever the number of workers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from robot_rl import ranges
from robot_rl.rollout import rollout
from robot_rl.types import Env, Episode, Player, RobotRLError

MakeEnv = Callable[[], Env]
MakePlayer = Callable[[], Player]
PATIENCE = 300.0  # a worker that answers nothing for so long hangs [s]
ATTEMPTS = 3  # a seed whose worker is lost so often is at fault itself


class WorkerLostError(Exception):
    """A worker died or hangs; the message says which."""


class Worker:
    """A process that runs `serve(pipe, *arguments)` and answers what it is sent."""

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        # Not forked: torch's and OpenGL's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_quietly, args=(serve, theirs, *arguments), daemon=True)
        with deaf():
            self._process.start()
        theirs.close()
        self._asked = time.monotonic()

    def send(self, message: Any) -> None:
        """Ask something; that a worker is dead shows when the answer is due."""
        self._asked = time.monotonic()
        with suppress(BrokenPipeError):
            self.pipe.send(message)

    def receive(self) -> Any:
        """Its answer. Raises what the user can mend there, and `WorkerLostError` where there is nobody to answer."""
        if not self.pipe.poll(max(0.0, self._asked + PATIENCE - time.monotonic())):
            raise WorkerLostError(f"gave no answer for {PATIENCE:.0f} s")
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise WorkerLostError("died; if it said nothing above it was killed, as for want of memory") from error
        if isinstance(answer, RobotRLError):
            raise answer
        return answer

    @property
    def late(self) -> bool:
        """Whether an answer is overdue."""
        return time.monotonic() > self._asked + PATIENCE

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.pipe.close()
        self._process.kill()
        self._process.join()


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that begin within never hear a Ctrl-C, which a terminal sends to all: who began them ends them.

    The signals are blocked, not ignored, so that this process gets afterwards what came meanwhile.
    """
    resource_tracker.ensure_running()  # it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _quietly(serve: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    warnings.simplefilter("ignore", UserWarning)  # the first process has said it
    try:
        serve(pipe, *arguments)
    except RobotRLError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass  # nobody is left to serve


class Losses:
    """Counts how often each seed lost its worker, and gives up on one that does so again and again."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def note(self, seeds: Iterable[int], error: WorkerLostError) -> None:
        """The worker that played `seeds` was lost; raises when one of them has used up its attempts."""
        self._count.update(seeds)
        worst = [seed for seed, count in self._count.items() if count >= ATTEMPTS]
        if worst:
            raise RobotRLError(
                f"the worker that played the episode of seed {', '.join(map(str, worst))} {error}, {ATTEMPTS} times. "
                "Use --workers 1 to see it happen."
            ) from error


def require_workers(workers: int) -> int:
    """`workers`, where it makes sense; more than there are cores is said."""
    ranges.require_value("workers", workers, "workers")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers > cores:
        warnings.warn(f"{workers} workers share {cores} cores: more than {cores} gain nothing", stacklevel=3)
    return workers


def episodes(
    make_env: MakeEnv, make_player: MakePlayer, seeds: Iterable[int], workers: int
) -> Generator[Episode, None, None]:
    """One episode for each seed, in their order, played without exploration, each whole in one of `workers` processes.

    For players that think for themselves, such as operators; `vector.episodes` is for those that share a policy.
    """
    if require_workers(workers) == 1:
        yield from _alone(make_env, make_player, seeds)
        return
    crew = [Worker(_play, make_env, make_player) for _ in range(workers)]
    try:
        yield from _by_crew(crew, lambda: Worker(_play, make_env, make_player), iter(seeds))
    finally:
        for worker in crew:
            worker.stop()


def _alone(make_env: MakeEnv, make_player: MakePlayer, seeds: Iterable[int]) -> Iterator[Episode]:
    player = make_player()
    with closing(make_env()) as env:
        for seed in seeds:
            yield rollout(env, player, explore=False, seed=seed)


def _by_crew(crew: list[Worker], replace: Callable[[], Worker], seeds: Iterator[int]) -> Iterator[Episode]:
    """Every worker plays the next seed that nobody plays; at most two a worker wait to be handed out in order."""
    busy: dict[int, tuple[int, int]] = {}  # worker: (place in the order, seed)
    again: list[tuple[int, int]] = []
    finished: dict[int, Episode] = {}
    losses, handed_out, order = Losses(), 0, enumerate(seeds)

    def set_to_work() -> None:
        for k in set(range(len(crew))) - set(busy):
            room = len(finished) + len(busy) < 2 * len(crew)
            task = again.pop() if again else next(order, None) if room else None
            if task is not None:
                busy[k] = task
                crew[k].send(task[1])

    while True:
        set_to_work()
        while handed_out in finished:
            yield finished.pop(handed_out)
            handed_out += 1
            set_to_work()
        if not busy:
            return
        for k in ready(crew, list(busy)):
            place, seed = busy.pop(k)
            try:
                finished[place] = crew[k].receive()
            except WorkerLostError as error:
                losses.note([seed], error)
                crew[k].stop()
                crew[k] = replace()
                again.append((place, seed))


def ready(crew: Sequence[Worker], busy: Sequence[int]) -> list[int]:
    """Those of the `busy` whose answer is there or overdue, at least one."""
    while True:
        heard = wait([crew[k].pipe for k in busy], timeout=1.0)
        answering = [k for k in busy if crew[k].pipe in heard or crew[k].late]
        if answering:
            return answering


def _play(pipe: Connection, make_env: MakeEnv, make_player: MakePlayer) -> None:
    """In a worker: one world and one player, on one thread."""
    import torch

    torch.set_num_threads(1)
    player = make_player()
    with closing(make_env()) as env:
        while True:
            pipe.send(rollout(env, player, explore=False, seed=pipe.recv()))
