"""The verb `inspect`: what is in a store of episodes, and what in it should worry you before you train on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robot_rl import control, episodes
from robot_rl.depth import visible
from robot_rl.episodes import EpisodeStore
from robot_rl.quality import no_success, quality
from robot_rl.runs import atomically
from robot_rl.statistics import wilson
from robot_rl.types import Channel, Episode, RobotRLError, Spec
from robot_rl.video import write_video

SATURATED = 0.999  # |action| from here on counts as the end of its range
SATURATED_SHARE = 0.2  # warn from this share of steps on
GAP = 1.5  # warn of readings further apart than so many control periods
TOLERANCE = 0.01  # share of its range by which a reading may leave it: fingers give, sensors have offsets
SELDOM = 0.001  # readings outside are not worth a warning below this share of all
MUCH = 0.1  # but by this share of the range they are, however few
IDLE = 0.01  # |action| below which nothing moves
SHOWN = 6  # trajectories in a plot


def inspect(store: Path, out: Path | None = None, repair: bool = False, video_of: int = 0) -> str:
    """What the store holds, as text to print; with `out` also write plots and a video of episode `video_of`.

    `repair` first mends what a killed writer or a failing disk left. Damaged episodes are listed, not counted.
    """
    lines = episodes.repair(store) if repair else []
    opened = EpisodeStore.open(store)
    if out is not None and not 0 <= video_of < max(len(opened), 1):
        raise RobotRLError(f"there is no episode {video_of} to make a video of; {store} has 0 to {len(opened) - 1}")
    sound, damaged = _read(opened)
    read = list(sound.values())
    lines += [f"store       {opened.path}", *_summary(opened.spec, read)]
    warnings = damaged
    if read:
        table, odd = _channels(opened.spec, read)
        told = quality(sound, opened.spec.rate)
        lines += [*told.lines(), *(f"look at     {line}" for line in told.outliers())]
        lines += ["", *_keys(read[0], opened.spec), "", *table]
        warnings = [*damaged, *no_success(opened.spec, read), *odd, *_gaps(sound, opened.spec.rate)]
    lines += ["", *(f"WARNING  {w}" for w in warnings)] if warnings else []
    if out is not None and read:
        lines += ["", *_write_plots(Path(out), opened.spec, read), _write_video(Path(out), opened, video_of)]
    return "\n".join(lines)


def _read(store: EpisodeStore) -> tuple[dict[int, Episode], list[str]]:
    """Every sound episode by its index, without images, and what is wrong with the others."""
    sound, damaged = {}, []
    for i in range(len(store)):
        try:
            sound[i] = store.read(i, images=False)
        except RobotRLError as error:
            damaged.append(str(error))
    return sound, damaged


# ---------------------------------------------------------------------------------------------------------------- text


def _summary(spec: Spec, read: list[Episode]) -> list[str]:
    arm = f", arm {spec.arm}" if spec.arm else ""
    lines = [f"world       {spec.world}{arm}, {spec.rate:g} Hz, at most {spec.max_steps} steps"]
    if not read:
        return [*lines, "episodes    0"]
    lengths = [len(e) for e in read]
    successes, n = sum(e.success for e in read), len(read)
    low, high = wilson(successes, n)
    human = np.concatenate([e.intervened for e in read])
    touched = sum(bool(e.intervened.any()) for e in read)
    repaired = sum("repaired" in e.meta for e in read)
    return [
        *lines,
        f"episodes    {n}{f', {repaired} of them repaired' if repaired else ''}",
        f"steps       {sum(lengths)} ({sum(lengths) / spec.rate:.0f} s); "
        f"an episode has {min(lengths)} / {np.median(lengths):g} / {max(lengths)} (min / median / max)",
        f"success     {successes} of {n}: {successes / n:.1%}, 95 % interval {low:.1%} to {high:.1%}",
        f"endings     {sum(e.terminated for e in read)} terminated, {sum(e.truncated for e in read)} truncated",
        f"human       {human.mean():.1%} of the steps, in {touched} of {n} episodes",
        *_idle(spec, read),
    ]


def _idle(spec: Spec, read: list[Episode]) -> list[str]:
    """The share of steps that ask for no motion, where actions are motions."""
    moves = np.array(["delta" in channel.name for channel in spec.action])
    if not moves.any():
        return []
    still = control.hold(spec.action, np.zeros(len(moves), np.float32))
    shares = [float((np.abs(e.action - still)[:, moves] < IDLE).all(1).mean()) for e in read]
    mean = np.average(shares, weights=[len(e) for e in read])
    return [f"idle        {mean:.1%} of the steps ask for no motion; the worst episode {max(shares):.1%}"]


def _keys(first: Episode, spec: Spec) -> list[str]:
    """Every array of an episode with shape and dtype; T is its number of steps."""
    rows = [(f"obs {k}", "T + 1", v.shape[1:], v.dtype) for k, v in first.obs.items()]
    rows += [(f"obs image/{c.name}", "T + 1", c.shape, c.dtype) for c in spec.cameras]
    rows += [(k, "T", getattr(first, k).shape[1:], getattr(first, k).dtype) for k in ("action", "reward", "score")]
    rows += [(f"extra {k}", "T + 1", v.shape[1:], v.dtype) for k, v in first.extras.items()]
    wide = max(28, *(len(name) + 2 for name, *_ in rows))
    return [
        f"{name:<{wide}}{dtype!s:<10}({', '.join([steps, *map(str, shape)])})" for name, steps, shape, dtype in rows
    ]


def _channels(spec: Spec, read: list[Episode]) -> tuple[list[str], list[str]]:
    """A table of every channel of state and action, and warnings about the odd ones."""
    state = np.concatenate([e.obs["state"] for e in read])
    action = np.concatenate([e.action for e in read])
    table = [f"{'channel':<28}{'unit':<8}{'range of the Spec':>22}{'min':>10}{'mean':>10}{'max':>10}"]
    odd = []
    for kind, channels, values in (("state", spec.state, state), ("action", spec.action, action)):
        for channel, column in zip(channels, values.T, strict=True):
            seen = f"{column.min():>10.4g}{column.mean(dtype=float):>10.4g}{column.max():>10.4g}"
            bounds = f"{channel.low:.4g} to {channel.high:.4g}"
            table.append(f"{f'{kind} {channel.name}':<28}{channel.unit:<8}{bounds:>22}{seen}")
            odd += _oddities(kind, channel, column)
    return [*table, "Actions are shown in [-1, 1]; their range of the Spec is what -1 and 1 mean."], odd


def _oddities(kind: str, channel: Channel, column: np.ndarray) -> list[str]:
    """What is suspicious about one channel's values (N,)."""
    name, found = f"{kind} {channel.name}", []
    if column.min() == column.max():
        found.append(f"{name} is always {column[0]:g}: it tells a policy nothing")
    beyond = np.maximum(column - channel.high, channel.low - column)
    if kind == "state" and (often := _outside(beyond / (channel.high - channel.low))):
        found.append(
            f"{name} leaves its range [{channel.low:g}, {channel.high:g}] {channel.unit} in {often} of the "
            f"readings, by up to {beyond.max():.3g} {channel.unit}"
        )
    saturated = np.mean(np.abs(column) >= SATURATED)
    moves = kind == "action" and not name.endswith("gripper")  # fingers are told to be open or closed
    if moves and saturated >= SATURATED_SHARE and column.min() != column.max():
        found.append(f"{name} is at the end of its range in {saturated:.1%} of the steps: widen its range or slow down")
    return found


def _outside(beyond: np.ndarray) -> str:
    """How often readings lie outside their range, by the shares `beyond` of it (N,); "": not worth a warning."""
    outside = int(np.sum(beyond > TOLERANCE))
    share = outside / len(beyond)
    if share >= SELDOM:
        return f"{share:.1%}"
    return f"{outside} of {len(beyond)}" if beyond.max() > MUCH else ""


def _gaps(read: dict[int, Episode], rate: float) -> list[str]:
    """Readings that came late or never: the same stamp twice is an old reading again."""
    found = []
    for key in sorted({key for e in read.values() for key in e.obs if key.startswith("stamp/")}):
        steps = [(i, np.diff(e.obs[key])) for i, e in read.items() if key in e.obs]
        gaps = np.concatenate([d for _, d in steps])
        worst, where = max((d.max(), i) for i, d in steps)
        if worst > GAP / rate:
            late = np.mean(gaps > GAP / rate)
            found.append(
                f"{key} has gaps of up to {worst:.3g} s at {rate:g} Hz (episode {where}); {late:.1%} of the periods "
                f"are longer than {GAP:g} x {1 / rate:.3g} s"
            )
        if np.any(gaps <= 0):
            found.append(
                f"{key} stands still or goes back in {np.mean(gaps <= 0):.1%} of the periods: an old reading again"
            )
    return found


# ------------------------------------------------------------------------------------------------------------- pictures


def _write_plots(out: Path, spec: Spec, read: list[Episode]) -> list[str]:
    out.mkdir(parents=True, exist_ok=True)
    return [_plot_lengths(out, read), _plot_actions(out, spec.action, read), _plot_states(out, spec, read)]


def _plot_lengths(out: Path, read: list[Episode]) -> str:
    figure, (axes,) = _grid(1)
    lengths = {flag: [len(e) for e in read if e.success == flag] for flag in (True, False)}
    bins = np.histogram_bin_edges([len(e) for e in read], bins=min(40, len(read) + 1)).tolist()
    axes.hist([lengths[True], lengths[False]], bins=bins, stacked=True, label=["success", "no success"])
    axes.set(xlabel="steps of an episode", ylabel="episodes")
    axes.legend()
    return _save(figure, out / "lengths.png")


def _plot_actions(out: Path, channels: Sequence[Channel], read: list[Episode]) -> str:
    action = np.concatenate([e.action for e in read])
    figure, grid = _grid(len(channels))
    for axes, channel, column in zip(grid, channels, action.T, strict=False):
        axes.hist(column, bins=np.linspace(-1, 1, 41).tolist(), log=True)
        axes.set(title=f"{channel.name}: 1 is {channel.high:g} {channel.unit}", ylabel="steps")
    return _save(figure, out / "actions.png")


def _plot_states(out: Path, spec: Spec, read: list[Episode]) -> str:
    chosen = [read[i] for i in np.unique(np.linspace(0, len(read) - 1, SHOWN).astype(int))]
    figure, grid = _grid(len(spec.state))
    for i, (axes, channel) in enumerate(zip(grid, spec.state, strict=False)):
        for episode in chosen:
            axes.plot(np.arange(len(episode) + 1) / spec.rate, episode.obs["state"][:, i], lw=1)
        axes.set(title=channel.name, xlabel="s", ylabel=channel.unit)
    return _save(figure, out / "states.png")


def _grid(n: int) -> tuple[Figure, list[Axes]]:
    """A figure with n small plots, four a row; made without pyplot, which would need closing."""
    columns = min(max(n, 1), 4)
    rows = -(-max(n, 1) // columns)
    figure = Figure(figsize=(1 + 3.2 * columns, 0.6 + 2.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(n)]


def _save(figure: Figure, path: Path) -> str:
    atomically(path, lambda part: figure.savefig(part, dpi=100, format="png"))
    return f"wrote {path}"


def _write_video(out: Path, store: EpisodeStore, i: int) -> str:
    if not store.spec.cameras:
        return "no video: this store has no cameras"
    path = out / f"episode_{i:06d}.mp4"
    try:
        obs = store[i].obs
    except RobotRLError as error:
        return f"no video: {error}"
    write_video(path, _side_by_side([visible(obs[f"image/{c.name}"]) for c in store.spec.cameras]), store.spec.rate)
    return f"wrote {path} ({', '.join(c.name for c in store.spec.cameras)})"


def _side_by_side(cameras: list[np.ndarray]) -> list[np.ndarray]:
    """Several cameras, each (T + 1, H, W, 3), as one row of pictures; the lower ones stand on black."""
    height = max(c.shape[1] for c in cameras)
    padded = [np.pad(c, ((0, 0), (height - c.shape[1], 0), (0, 0), (0, 0))) for c in cameras]
    return list(np.concatenate(padded, axis=2))
