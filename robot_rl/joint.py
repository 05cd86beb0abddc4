"""Several stores as one: recordings of the same robot whose ranges nobody told show different ones."""

from __future__ import annotations

import os
from collections.abc import Sequence

from robot_rl.episodes import EpisodeStore
from robot_rl.types import Channel, RobotRLError, Spec


def join(stores: Sequence[EpisodeStore], *, state_only: bool = False) -> Spec:
    """The Spec of all `stores`, which give their episodes in its ranges from now on.

    Ranges that were only seen (`Channel.seen`) are made so wide that they hold those of every store; raises where
    anything else differs, but for the time limit and, with `state_only`, the cameras, or where one counts twice.
    """
    require_distinct(stores)
    spec = stores[0].spec
    for store in stores[1:]:
        names = f"the store {stores[0].path}", f"the store {store.path}"
        spec = spec.joined(store.spec, *names, state_only=state_only)
    for store in stores:
        store.express(spec)
    return spec


def require_distinct(stores: Sequence[EpisodeStore]) -> None:
    """Raise RobotRLError where two of `stores` are one folder, however it is named, or hold the same episode."""
    for i, store in enumerate(stores):
        for other in stores[:i]:
            if os.path.samefile(store.path, other.path):
                how = "" if store.path == other.path else f", which is {other.path},"
                raise RobotRLError(
                    f"the store {store.path}{how} is named twice: its episodes would count double; name it once"
                )
    held: dict[str, tuple[EpisodeStore, int]] = {}
    for store in stores:
        own = {recorded: (store, i) for i, recorded in enumerate(store.recorded())}
        if shared := [recorded for recorded in own if recorded in held]:
            (first, there), (_, here) = held[shared[0]], own[shared[0]]
            raise RobotRLError(
                f"{len(shared)} of the {len(store)} episodes of the store {store.path} were recorded as some of "
                f"{first.path}, such as {here} as its {there}: they would count double; name only one of the two"
            )
        held |= own


def express_for(store: EpisodeStore, spec: Spec, owner: str, *, state_only: bool = False) -> list[str]:
    """Let `store` give its episodes in the ranges of `spec`, which its `owner`, a trained policy, keeps.

    Raises where anything but seen ranges differs, and where the store holds commands beyond those that the policy can
    give. States beyond those that it was trained on are returned, a warning each.
    """
    name = f"the store {store.path}"
    both = store.spec.joined(spec, name, owner, state_only=state_only)
    if beyond := _beyond(both.action, spec.action):
        raise RobotRLError(
            f"{name} commands {'; '.join(beyond)}: {owner} can give none of these. Pretrain it with that store too, or "
            "leave the store out"
        )
    store.express(spec)
    return [f"{name} shows state {b}: {owner} was trained on no such" for b in _beyond(both.state, spec.state)]


def _beyond(both: Sequence[Channel], own: Sequence[Channel]) -> list[str]:
    """Which channels of `both` reach further than their own."""
    return [
        f"{b.name} from {b.low:.4g} to {b.high:.4g}, beyond {c.low:.4g} to {c.high:.4g}"
        for b, c in zip(both, own, strict=True)
        if b.low < c.low or b.high > c.high
    ]
