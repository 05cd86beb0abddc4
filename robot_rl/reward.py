"""The verb `reward`: learn from pictures when a task is done, and say how far the answer can be trusted.

Positives are the last rows of successful episodes, negatives all others, and all of a further store where there is one.
Episodes are split in three: most train; some choose the threshold, as low as the budget of false alarms allows; the
last, which neither has seen, say how good that is. An alarm is false where success is claimed at any earlier row of an
episode, `near` rows before success left aside: nobody can say to the frame when a task is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from robot_rl import fingerprints, joint, memory, ranges
from robot_rl.episodes import EpisodeStore
from robot_rl.progress import told
from robot_rl.runs import Run, atomically
from robot_rl.statistics import wilson
from robot_rl.types import Episode, RobotRLError, Spec

NO_FAILURE = (
    "no episode here has failed: a policy that practises will show pictures of other kinds, and learn which of them "
    "pass for success. Collect with --keep-failures, or give episodes that failed as --negatives."
)


class ClassifierConfig(Protocol):
    """A config that builds a trainable classifier."""

    def build(self, spec: Spec) -> Any:
        """An untrained classifier for the worlds of `spec`."""


@dataclass(frozen=True)
class RewardConfig:
    """How a classifier of success is trained."""

    steps: int = 1000
    """gradient steps"""
    batch: int = 64
    """pictures in a step, half of them of success, a quarter of those others that the guards let pass"""
    learning_rate: float = 1e-3
    """of AdamW"""
    last: int = 1
    """rows at the end of a successful episode that show success"""
    near: int = 2
    """rows before those that are neither"""
    false_alarms: float = 0.05
    """budget: share of the episodes in which success may be claimed where there is none"""
    held_out: float = 0.2
    """share of the episodes that choose the threshold, and as many again that test it"""
    threads: int = 1
    """CPU threads"""
    seed: int = 0
    """of the split, the initial weights and the batches"""


def train(
    out: Path,
    stores: Sequence[Path],
    negatives: Path | None,
    classifier: ClassifierConfig,
    config: RewardConfig,
    save: Callable[[Any, Path], None],
) -> dict[str, Any]:
    """Train into the folder `out`: `reward.pt` and `reward.json`, which is returned. `save` writes a classifier."""
    ranges.require(config)
    described: dict[str, Any] = {"store": [str(Path(store).resolve()) for store in stores]}
    described["negatives"] = negatives and str(Path(negatives).resolve())
    described |= {"classifier": classifier, "reward": config}
    with Run(out, "reward", described, free=("reward.steps", "reward.threads")) as run:  # it trains anew each time
        used = [EpisodeStore.open(path) for path in [*stores, *([] if negatives is None else [negatives])]]
        joint.join(used)
        torch.manual_seed(config.seed)
        model = classifier.build(used[0].spec)
        episodes = _episodes(used, negatives)
        parts = split(episodes, config)
        torch.set_num_threads(config.threads)
        run.begin(fingerprints.of_stores((store, len(store)) for store in used))
        model.vision.start()
        losses = _fit(model, _Pictures(parts[0], config, model.allowed), config)
        model.eval().requires_grad_(False)
        chosen, test = ([_Scored(model, e, config) for e in part] for part in parts[1:])
        model.threshold = threshold(chosen, config.false_alarms)
        failed = sum(not episode.success for episode in episodes)
        result = {"threshold": model.threshold, "loss": losses, "failed_episodes": failed}
        result["chosen_on"] = _judged(chosen, model.threshold)
        result["test"] = _judged(test, model.threshold)
        print(in_words(result), flush=True)  # before it is written: a full disk loses nothing
        save(model, run.path / "reward.pt")
        atomically(run.path / "reward.json", lambda part: part.write_text(json.dumps(result, indent=1) + "\n"))
    return result


def _episodes(stores: Sequence[EpisodeStore], negatives: Path | None) -> list[Episode]:
    """All of them, with their pictures; those of `negatives` without rewards."""
    spec, episodes = stores[0].spec, list[Episode]()
    lengths = [length + 1 for store in stores for length in store.lengths()]
    memory.require_pictures(spec.cameras, sum(lengths), copies=2)  # as episodes, and as pictures to draw from
    for store in stores:
        for episode in store:
            if negatives is not None and store.path == Path(negatives):
                episode.reward[:] = 0
            episodes.append(episode)
    return episodes


def split(episodes: Sequence[Episode], config: RewardConfig) -> tuple[list[Episode], list[Episode], list[Episode]]:
    """Episodes for training, for the threshold and for the test; successful and failed ones each in these shares."""
    rng = np.random.default_rng(config.seed)
    parts: tuple[list[Episode], list[Episode], list[Episode]] = ([], [], [])
    for success in (True, False):
        kind = [e for e in episodes if e.success == success]
        order, n = rng.permutation(len(kind)), round(config.held_out * len(kind))
        for part, places in zip(parts, (order[2 * n :], order[:n], order[n : 2 * n]), strict=True):
            part += [kind[i] for i in places]
        if success and n < 2:
            raise RobotRLError(f"{len(kind)} successful episodes are too few to hold some out twice; collect more")
    return parts


def labels(episode: Episode, config: RewardConfig) -> np.ndarray:
    """(T + 1,) int: 1 success, 0 none, -1 neither, near success."""
    label = np.zeros(len(episode) + 1, np.int64)
    if episode.success:
        label[-config.last - config.near :] = -1
        label[-config.last :] = 1
    return label


class _Pictures:
    """The rows of many episodes that are success or none, as bytes; `allowed`: of states, which the guards let pass."""

    def __init__(
        self, episodes: Sequence[Episode], config: RewardConfig, allowed: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        label = [labels(e, config) for e in episodes]
        keys = [key for key in episodes[0].obs if key.startswith("image/")]
        self._rows = {
            key: torch.from_numpy(np.concatenate([e.obs[key][y >= 0] for e, y in zip(episodes, label, strict=True)]))
            for key in keys
        }
        known = np.concatenate([y[y >= 0] for y in label])
        passes = allowed(np.concatenate([e.obs["state"][y >= 0] for e, y in zip(episodes, label, strict=True)]))
        others, success, deceptive = (np.flatnonzero(rows) for rows in (known == 0, known == 1, (known == 0) & passes))
        quarters = others, success, deceptive if len(deceptive) else others, success
        self._kinds = [torch.from_numpy(rows) for rows in quarters]

    def draw(self, size: int) -> tuple[dict[str, Tensor], Tensor]:
        """ "image/<camera>" (size, H, W, 3) and labels (size,)."""
        kind = torch.arange(size) % 4
        at = torch.stack([rows[torch.randint(len(rows), (size,))] for rows in self._kinds])[kind, torch.arange(size)]
        return {key: rows[at] for key, rows in self._rows.items()}, (kind % 2).float()


def _fit(model: Any, pictures: _Pictures, config: RewardConfig) -> float:
    """Train; the mean loss of the last tenth of the steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(config.steps, 1))
    model.train()
    losses = []
    for _ in told(range(config.steps), "reward", config.steps):
        seen, label = pictures.draw(config.batch)
        loss = functional.binary_cross_entropy_with_logits(model(seen), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return float(torch.stack(losses[-max(config.steps // 10, 1) :]).mean()) if losses else float("nan")


class _Scored:
    """An episode as the classifier sees it: probabilities, 0 where a guard objects, beside what is true."""

    def __init__(self, model: Any, episode: Episode, config: RewardConfig) -> None:
        pictures = {k: torch.from_numpy(v) for k, v in episode.obs.items() if k.startswith("image/")}
        self.probability = model(pictures).sigmoid().numpy() * model.allowed(episode.obs["state"])
        self.label = labels(episode, config)
        self.highest_false = float(self.probability[self.label == 0].max(initial=0.0))


def threshold(scored: Sequence[Any], budget: float) -> float:
    """The lowest threshold at which at most a share `budget` of the episodes has a false alarm."""
    highest = np.sort([s.highest_false for s in scored])[::-1]
    return float(np.nextafter(np.float32(highest[int(budget * len(highest))]), np.float32(2)))


def _judged(scored: Sequence[Any], at: float) -> dict[str, Any]:
    """How claims of success at the threshold `at` turn out. An episode claims once, at its first row above it."""
    claims = [s.label[np.argmax(s.probability >= at)] for s in scored if (s.probability >= at).any()]
    true, successes = sum(c != 0 for c in claims), sum((s.label == 1).any() for s in scored)
    rows = np.concatenate([s.probability[s.label == 0] >= at for s in scored])
    return {
        "episodes": len(scored),
        "successes": int(successes),
        "claims": len(claims),
        "true_claims": int(true),
        "precision": true / len(claims) if claims else None,
        "precision_interval": wilson(int(true), len(claims)) if claims else None,
        "recall": true / successes if successes else None,
        "false_rows": int(rows.sum()),
        "negative_rows": len(rows),
    }


def in_words(result: dict[str, Any]) -> str:
    """What the test says, and what it cannot say."""
    t, blind = result["test"], "" if result["failed_episodes"] else f"\nWARNING  {NO_FAILURE}"
    if not t["claims"]:
        return f"threshold {result['threshold']:.3f}: no success is claimed in {t['episodes']} test episodes{blind}"
    low, high = t["precision_interval"]
    return (
        f"threshold {result['threshold']:.3f}: of {t['claims']} claims of success in {t['episodes']} test episodes "
        f"{t['true_claims']} are true (precision {100 * t['precision']:.0f} %, 95 % interval {100 * low:.0f}-"
        f"{100 * high:.0f}); {t['true_claims']} of {t['successes']} successes are seen; "
        f"{t['false_rows']} of {t['negative_rows']} other pictures are taken for one{blind}"
    )
