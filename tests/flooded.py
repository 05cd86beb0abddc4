"""A process that serves the page and stores episodes, for tests/test_web_flood.py to attack.

    python -m tests.flooded STORE FILES [CERT KEY]

FILES is its limit of open files. It prints its address, and when its standard input ends the number of episodes that it
stored, and how long the control loop waited for the page at most [s].
"""

from __future__ import annotations

import resource
import select
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from drivers.teleop import DeviceLost, Status
from drivers.web_teleop import WebTeleop
from drivers.web_tls import WebConfig
from robot_rl.episodes import EpisodeStore
from robot_rl.rollout import rollout
from robot_rl.types import Decision
from sim.worlds import WorldConfig


class Still:
    """A policy that does nothing."""

    n_obs = 1

    def reset(self, seed=None):
        pass

    def decide(self, obs, *, explore):
        return Decision(np.zeros((1, 2), np.float32))


def main(store: str, files: str, *tls: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
    config = WebConfig(*map(Path, tls)) if tls else WebConfig()
    with closing(WorldConfig("toy", max_steps=5).build()) as env, closing(WebTeleop("0", config)) as device:
        print(device.url, flush=True)
        slowest, stored = 0.0, 0
        with EpisodeStore.create(Path(store), env.spec) as kept:
            while not select.select([sys.stdin], [], [], 0.02)[0]:
                began = time.perf_counter()
                device.show(Status("recording", stored))
                with suppress(DeviceLost):
                    device.hand()
                slowest = max(slowest, time.perf_counter() - began)
                kept.append(rollout(env, Still(), explore=False, seed=stored))
                stored += 1
        print(f"stored {stored} slowest {slowest:.3f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
