"""What a person would say of practice on Lift: `python tests/benchmarks/reward_marks.py RUN [--out FOLDER]`.

Of the practice of `refine --reward` in RUN: how many claims of success were true, as robosuite judges (the cube above
0.84 m). With --out two stores for the next classifier: FOLDER/marked, the episodes that succeeded, each ended 6 steps
(0.3 s) after that, as by a person's key; FOLDER/failed, those in which the cube never came so high.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from robot_rl.episodes import EpisodeStore
from robot_rl.statistics import wilson
from robot_rl.types import Episode

HEIGHT = 0.84  # robosuite's Lift: the table's 0.8 m and 4 cm
REACTION = 6  # steps


def main() -> None:
    """Count, and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    practice = EpisodeStore.open(given.run / "episodes")
    height = [channel.name for channel in practice.spec.state].index("cube_pos_z")
    high = [e.obs["state"][:, height] > HEIGHT for e in practice]
    claimed = [e.success for e in practice]
    true = sum(c and bool(h[-1]) for c, h in zip(claimed, high, strict=True))
    unseen = sum(not c and bool(h.any()) for c, h in zip(claimed, high, strict=True))
    low, top = wilson(true, max(sum(claimed), 1))
    print(f"{true} of {sum(claimed)} claims are true ({100 * low:.0f}-{100 * top:.0f} %), {unseen} successes unseen,")
    print(f"in {len(practice)} episodes")
    if given.out is not None:
        _store(given.out / "marked", practice, [marked(e, h) for e, h in zip(practice, high, strict=True) if h.any()])
        failed = [replace(e, extras={}) for e, h in zip(practice, high, strict=True) if not h.any()]
        _store(given.out / "failed", practice, failed)


def marked(episode: Episode, high: np.ndarray) -> Episode | None:
    """The episode up to the moment in which a person would have called it a success; None: by then it was none."""
    end = min(int(np.flatnonzero(high)[0]) + REACTION, len(episode))
    if not high[end]:
        return None
    reward = np.zeros(end, np.float32)
    reward[-1] = 1.0
    obs = {key: rows[: end + 1] for key, rows in episode.obs.items()}
    cut = {"action": episode.action[:end], "intervened": episode.intervened[:end], "reward": reward, "score": reward}
    return replace(episode, obs=obs, **cut, terminated=True, truncated=False, extras={})


def _store(out: Path, practice: EpisodeStore, episodes: list[Episode | None]) -> None:
    with EpisodeStore.create(out, practice.spec) as store:
        for episode in filter(None, episodes):
            store.append(episode)
    print(f"{out}: {len(store)}")


if __name__ == "__main__":
    main()
