"""Many worlds at once: worker processes step them, memory is shared with them, and the policy is called once for all.

An episode depends on its agent and its seed alone: not on the number of worlds or workers, nor on who shared a policy
call with it, not even by rounding (see `frozen.in_rows`). So episodes can be played anywhere, again, in any order.
"""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol

import numpy as np

from robot_rl.rollout import Loop, play
from robot_rl.types import Env, Episode, Obs, Player, RobotRLError, Spec, Step
from robot_rl.workers import Losses, MakeEnv, MakePlayer, Worker, WorkerLostError, ready, require_workers

ROWS = 8  # rows of a policy call; it fixes the rounding, so it is no option
EACH = 8  # worlds of a worker
GROUPS = 2  # of them, which take turns: a worker steps one while the policy decides for the other
RHYTHM = 8  # ticks between starts of episodes, so that worlds want their chunks together

Answer = Obs | Step


def episodes(
    make_env: MakeEnv, make_player: MakePlayer, seeds: Sequence[int], workers: int
) -> Generator[Episode, None, None]:
    """One episode for each seed, in their order, played without exploration."""
    n = min(EACH * require_workers(workers), len(seeds))
    worlds = _Here(make_env, n) if workers == 1 else _Elsewhere(make_env, n, min(workers, n))
    with closing(worlds):
        yield from _played(worlds, _players(make_player, n), seeds)


class Share:
    """Plays whole shares of seeds in this process, call after call in the same worlds. It travels to other machines."""

    def __init__(self, make_env: MakeEnv, make_player: MakePlayer) -> None:
        self._key = (make_env, make_player)

    def __call__(self, seeds: Sequence[int]) -> list[Episode]:
        """The episodes of `seeds`."""
        if _kept.get("key") != pickle.dumps(self._key):
            make_env, make_player = self._key
            _kept.update(key=pickle.dumps(self._key), worlds=_Here(make_env, EACH), players=_players(make_player, EACH))
        return list(_played(_kept["worlds"], _kept["players"], seeds))


_kept: dict[str, Any] = {}  # a process's worlds and players, for its next share


@dataclass
class _Seat:
    """A world in which an episode is being played."""

    place: int  # in the order of the seeds
    seed: int
    player: Player
    loop: Loop | None = None  # None until the world has started
    wish: Any = None  # what `play` asks for


def _played(worlds: _Worlds, players: list[Player], seeds: Sequence[int]) -> Generator[Episode, None, None]:
    waiting, seats, finished = deque(enumerate(seeds)), dict[int, _Seat](), dict[int, Episode]()
    losses, ticks = Losses(), Counter[int]()
    for handed_out in range(len(seeds)):
        while handed_out not in finished:
            idle = worlds.idle()
            resting = not any(world in seats for world in idle)
            for world in [w for w in idle if w not in seats and (resting or ticks[w] % RHYTHM == 0)][: len(waiting)]:
                seats[world] = _Seat(*waiting.popleft(), players[world])
            asking = {world: seats[world] for world in idle if world in seats}
            starts = {world: seat.seed for world, seat in asking.items() if seat.loop is None}
            worlds.ask(starts, {world: seat.wish for world, seat in asking.items() if seat.loop is not None})
            ticks.update(idle)
            answers, lost = worlds.hear()
            for world, answer in answers.items():
                _hear(seats[world], answer, worlds.spec, finished)
            _decide(list(seats.values()), finished)
            for error, gone in lost:
                losses.note([seats[world].seed for world in gone if world in seats], error)
                waiting.extendleft((seat.place, seat.seed) for w in gone if (seat := seats.pop(w, None)))
            seats = {world: seat for world, seat in seats.items() if seat.place not in finished}
        yield finished.pop(handed_out)


def _hear(seat: _Seat, answer: Answer, spec: Spec, finished: dict[int, Episode]) -> None:
    """Tell an episode what its world answered."""
    if seat.loop is None:
        assert isinstance(answer, dict)
        seat.player.reset(seat.seed)
        seat.loop = play(answer, seat.player.n_obs, spec.max_steps, {"seed": seat.seed})
        seat.wish = next(seat.loop)
    else:
        _send(seat, answer, finished)


def _send(seat: _Seat, value: Any, finished: dict[int, Episode]) -> None:
    assert seat.loop is not None
    try:
        seat.wish = seat.loop.send(value)
    except StopIteration as end:
        seat.wish, finished[seat.place] = None, end.value


def _decide(seats: list[_Seat], finished: dict[int, Episode]) -> None:
    """Give a decision to all who want one, together where their players can."""
    asking = [seat for seat in seats if isinstance(seat.wish, dict)]
    if not asking:
        return
    players, wishes = [seat.player for seat in asking], [seat.wish for seat in asking]
    together = getattr(players[0], "decide_all", None)
    if together is not None:
        decisions = together(players, wishes, explore=False, rows=ROWS)
    else:
        decisions = [player.decide(wish, explore=False) for player, wish in zip(players, wishes, strict=True)]
    for seat, decision in zip(asking, decisions, strict=True):
        _send(seat, decision, finished)


def _players(make_player: MakePlayer, n: int) -> list[Player]:
    """n players; agents share their weights."""
    first = make_player()
    twin = getattr(first, "twin", make_player)
    return [first, *(twin() for _ in range(n - 1))]


Lost = list[tuple[WorkerLostError, Iterable[int]]]


class _Worlds(Protocol):
    spec: Spec

    def idle(self) -> list[int]:
        """The worlds that can be asked now."""

    def ask(self, starts: dict[int, int], actions: dict[int, np.ndarray]) -> None:
        """Reset some idle worlds to their seeds and step others."""

    def hear(self) -> tuple[dict[int, Answer], Lost]:
        """The answers of those that are ready, of one at least, and the worlds that were lost on the way."""

    def close(self) -> None:
        """Release the worlds."""


_Request = tuple[dict[int, int], list[int]]  # worlds to reset to these seeds, worlds to step


class _Here:
    """Worlds in this process."""

    def __init__(self, make_env: MakeEnv, n: int) -> None:
        self._envs = [make_env() for _ in range(n)]
        self.spec = self._envs[0].spec
        self._answers: dict[int, Answer] = {}

    def idle(self) -> list[int]:
        return list(range(len(self._envs)))

    def ask(self, starts: dict[int, int], actions: dict[int, np.ndarray]) -> None:
        self._answers = {world: self._envs[world].reset(seed) for world, seed in starts.items()}
        self._answers |= {world: self._envs[world].step(action) for world, action in actions.items()}

    def hear(self) -> tuple[dict[int, Answer], Lost]:
        return self._answers, []

    def close(self) -> None:
        for env in self._envs:
            env.close()


class _Elsewhere:
    """Worlds in worker processes, each with a row of a table in shared memory.

    A worker has its worlds in groups, so that it steps one while the policy decides for the other.
    """

    def __init__(self, make_env: MakeEnv, n: int, workers: int) -> None:
        self._make_env = make_env
        self._shares = [range(k, n, workers) for k in range(workers)]  # world w lives in worker w % workers
        self._groups = {k: [share[g::GROUPS] for g in range(GROUPS)] for k, share in enumerate(self._shares)}
        self._asked: dict[int, deque[_Request]] = {k: deque() for k in range(workers)}  # in the order of the answers
        self._memory: SharedMemory | None = None
        self._crew = [Worker(_serve, make_env, share) for share in self._shares]
        try:
            self.spec, record = [self._described(worker) for worker in self._crew][0]
        except BaseException:
            self.close()
            raise
        self._memory = SharedMemory(create=True, size=n * record.itemsize)
        self._table: Any = np.ndarray(n, record, self._memory.buf)
        for worker in self._crew:
            worker.send((self._memory.name, n))

    def idle(self) -> list[int]:
        asked = {w for requests in self._asked.values() for starts, steps in requests for w in (*starts, *steps)}
        groups = [group for groups in self._groups.values() for group in groups]
        return sorted(w for group in groups if not asked & set(group) for w in group)

    def ask(self, starts: dict[int, int], actions: dict[int, np.ndarray]) -> None:
        for world, action in actions.items():
            self._table[world]["action"] = action
        for k, groups in self._groups.items():
            for group in groups:
                request = {w: starts[w] for w in group if w in starts}, [w for w in group if w in actions]
                if any(request):
                    self._asked[k].append(request)
                    self._crew[k].send(request)

    def hear(self) -> tuple[dict[int, Answer], Lost]:
        answers: dict[int, Answer] = {}
        lost: Lost = []
        for k in ready(self._crew, [k for k, requests in self._asked.items() if requests]):
            try:
                self._crew[k].receive()
            except WorkerLostError as error:
                lost.append((error, self._shares[k]))
                self._replace(k)
                continue
            starts, steps = self._asked[k].popleft()
            answers |= {w: _obs(self._table[w]) for w in starts}
            answers |= {w: _step(self._table[w]) for w in steps}
        return answers, lost

    def close(self) -> None:
        for worker in self._crew:
            worker.stop()
        if self._memory is not None:
            self._table = None  # it points into the memory
            self._memory.close()
            self._memory.unlink()

    def _replace(self, k: int) -> None:
        assert self._memory is not None
        self._asked[k].clear()
        self._crew[k].stop()
        self._crew[k] = Worker(_serve, self._make_env, self._shares[k])
        self._described(self._crew[k])
        self._crew[k].send((self._memory.name, len(self._table)))

    @staticmethod
    def _described(worker: Worker) -> tuple[Spec, np.dtype[Any]]:
        """What a fresh worker says of its worlds."""
        try:
            described: tuple[Spec, np.dtype[Any]] = worker.receive()
            return described
        except WorkerLostError as error:
            raise RobotRLError(
                f"a worker {error}, while it built its worlds. Use --workers 1 to see it happen."
            ) from error


PLAIN = {"reward": np.float64, "terminated": bool, "truncated": bool, "intervened": bool, "score": np.float64}


def _record(obs: Obs, action: int) -> np.dtype[Any]:
    """The row of a world: what it observes, the action it is given and executes, and what it answers to it."""
    seen = [(f"obs/{key}", value.dtype, value.shape) for key, value in obs.items()]
    return np.dtype([*seen, ("action", np.float32, (action,)), *PLAIN.items()])


def _serve(pipe: Connection, make_env: MakeEnv, share: range) -> None:
    """In a worker: the worlds of its share."""
    envs = {world: make_env() for world in share}
    first = envs[share[0]]
    pipe.send((first.spec, _record(first.reset(0), len(first.spec.action))))
    name, n = pipe.recv()
    memory = SharedMemory(name)
    table: Any = np.ndarray(n, _record(first.reset(0), len(first.spec.action)), memory.buf)
    while True:
        starts, steps = pipe.recv()
        for world, seed in starts.items():
            _write_obs(table[world], envs[world].reset(seed))
        for world in steps:
            _write_step(table[world], envs[world])
        pipe.send(None)


def _write_obs(row: Any, obs: Obs) -> None:
    for key, value in obs.items():
        row[f"obs/{key}"] = value


def _write_step(row: Any, env: Env) -> None:
    step = env.step(row["action"].copy())
    _write_obs(row, step.obs)
    row["action"] = step.action
    for key in PLAIN:
        row[key] = getattr(step, key)


def _obs(row: Any) -> Obs:
    return {key[4:]: np.array(row[key]) for key in row.dtype.names if key.startswith("obs/")}


def _step(row: Any) -> Step:
    return Step(_obs(row), row["action"].copy(), **{key: row[key].item() for key in PLAIN})
