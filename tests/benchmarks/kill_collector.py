"""A person's session is killed at random moments: `python tests/benchmarks/kill_collector.py STORE --times 100`.

The collector runs in a pseudo-terminal, in robosuite's Lift in real time, each time as a fresh child of this process,
which has imported everything already: starting Python a hundred times would take half an hour. A stand-in for the
person types without pause: start, move, mark. After each kill -9 the same command goes on with the same store. Prints
how often it was killed and what was stored; an episode that the screen had said to be stored must be there and load.
"""

from __future__ import annotations

import argparse
import os
import pty
import random
import re
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from robot_rl import cli  # noqa: E402
from robot_rl.episodes import EpisodeStore  # noqa: E402
from tests.terminal import Typed  # noqa: E402

STEPS = 6  # of an episode, about; short ones, so that many kills fall into storing
LONGEST = 2.0  # after the session is ready, until the kill [s]


def main() -> None:
    """Kill, go on, look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, kept = random.Random(given.seed), 0
    begin = time.monotonic()
    for number in range(given.times):
        told, state = session(given.store, rng.uniform(0.0, LONGEST))
        store = EpisodeStore.open(given.store)
        lengths = [len(episode) for episode in store]  # checks every sum
        assert len(store) >= max(told, kept), f"{told} were told to be stored, {len(store)} are there"
        kept = len(store)
        print(f"kill {number + 1} while {state}: {kept} episodes, {sum(lengths)} steps, all load", flush=True)
    minutes = (time.monotonic() - begin) / 60
    print(f"{given.times} kills in {minutes:.1f} min: {kept} episodes stored, none of them lost or damaged")


class Forked(Typed):
    """The same, in a child of this process."""

    def __init__(self, *arguments: object) -> None:
        self._pid, self._fd = pty.fork()
        if not self._pid:
            os._exit(cli.main([str(argument) for argument in arguments]))
        self.shown = ""

    def kill(self) -> None:
        """At once, as kill -9 does."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def close(self) -> None:
        """Of the terminal."""
        os.close(self._fd)


def session(store: Path, after: float) -> tuple[int, str]:
    """Type for `after` seconds, then kill; how many episodes the screen had told, and what it was about."""
    arguments = ("collect", "--out", store, "--device", "keyboard", "--episodes", 100_000, "--free-gib", 0.1)
    with closing(Forked(*arguments)) as typed:
        typed.until("WAITING", 180)
        end, marked = time.monotonic() + after, 0
        while time.monotonic() < end:
            text = typed.read(0.02)
            typed.press("\n" if text.rfind("WAITING") > text.rfind("RECORDING") else "w")
            steps = re.findall(r"\| (\d+) steps", text)
            if text.rfind("RECORDING") > marked and steps and int(steps[-1]) >= STEPS:
                typed.press("y")
                marked = len(text)
        typed.kill()
        text = typed.read(0.1)
    counts = [int(n) for n in re.findall(r"(\d+) of 100000 episodes", text)]
    return max(counts, default=0), re.findall(r"WAITING|RECORDING|JUDGING", text)[-1].lower()


if __name__ == "__main__":
    main()
