"""Episodes on a Ray cluster: the same seeds give the same episodes as one process; what a lost node played is retried.

Every node needs this package, the same files under the same paths (a shared folder), and the same kind of processor:
another one rounds otherwise.
"""

from __future__ import annotations

import itertools
import logging
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from robot_rl.types import Episode, RobotRLError

PATIENCE = 8.0  # a cluster that does not answer within this is not there [s]
SHARE = 4  # episodes of a task
RETRIES = 3  # of a task whose node or process was lost

Play = Callable[[Sequence[int]], list[Episode]]  # what a task does: the episodes of some seeds, whole


def episodes(play: Play, seeds: Iterable[int], address: str) -> Generator[Episode, None, None]:
    """One episode for each seed, in their order, played by the cluster at `address`: "auto", or "host:port"."""
    ray = connect(address)
    try:
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_task)
        shared = ray.put(play)
        ahead = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
        waiting, running = _shares(seeds), deque[tuple[list[int], Any]]()
        while True:
            for share in itertools.islice(waiting, ahead - len(running)):
                running.append((share, remote.remote(shared, share)))
            if not running:
                return
            share, reference = running.popleft()
            yield from _result(ray, reference, share)
    finally:
        ray.shutdown()


def connect(address: str) -> Any:
    """Ray, connected to the cluster at `address`; raises within seconds where nobody answers."""
    try:
        import ray
    except ImportError as error:
        raise RobotRLError("--ray needs Ray; install it with: pip install 'robot-rl[ray]'") from error
    if address != "auto":
        _require_listener(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RobotRLError(f"no Ray cluster answers at '{address}' ({type(error).__name__}). {REMEDY}") from error
    return ray


REMEDY = "Start one with `ray start --head`, and give --ray auto on that machine or --ray HOST:PORT elsewhere"


def _require_listener(address: str) -> None:
    """Ray itself would wait for minutes where nobody, or something else, listens."""
    import grpc

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise RobotRLError(f"--ray takes 'auto' or HOST:PORT, not '{address}'")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(PATIENCE)  # Ray's head speaks gRPC
    except (OSError, grpc.FutureTimeoutError) as error:
        raise RobotRLError(f"no Ray cluster answers at '{address}' ({type(error).__name__}). {REMEDY}") from error


def _shares(seeds: Iterable[int]) -> Iterator[list[int]]:
    seeds = iter(seeds)
    while share := list(itertools.islice(seeds, SHARE)):
        yield share


def _task(play: Play, share: list[int]) -> list[Episode] | RobotRLError:
    """On a node. What the user can mend comes back as a value: Ray would wrap it beyond recognition."""
    try:
        return play(share)
    except RobotRLError as error:
        return error


def _result(ray: Any, reference: Any, share: list[int]) -> list[Episode]:
    try:
        result = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise RobotRLError(
            f"the cluster lost the episodes of seeds {share[0]} to {share[-1]} {RETRIES + 1} times: {error}"
        ) from error
    if isinstance(result, RobotRLError):
        raise result
    played: list[Episode] = result
    return played
