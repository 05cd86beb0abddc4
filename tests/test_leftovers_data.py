"""Nothing counts twice, nothing is left out or resized without a word, and what a command cannot mean is one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from drivers import bag, bag_bounds, ros_arguments
from robot_rl import control, evaluate, imports, joint, outputs, prior
from robot_rl.cli import VERBS, main
from robot_rl.command_line import in_a_line
from robot_rl.episodes import EpisodeStore
from robot_rl.formats.account import Account
from robot_rl.imports import ImportConfig
from robot_rl.types import Channel, Episode, RobotRLError, Spec
from sim.worlds import WorldConfig
from tests.made import aloha, demonstrations


def read(source: Path, config: ImportConfig | None = None, **options: Any) -> tuple[list[Episode], str]:
    """The episodes of a recording, and what is told of them."""
    account = Account()
    world = WorldConfig(world=options.pop("world", ""), **options)
    _, episodes = imports.recordings(source, world, None, config or ImportConfig(), account)
    return list(episodes), "\n".join(account.lines())


# ------------------------------------------------------------------------------------------------------ HDF5, by names

LINKS = {
    "a demonstration": lambda f: f.__setitem__("data/demo_7", f["data/demo_0"]),
    "a demonstration, softly": lambda f: f.__setitem__("data/demo_7", h5py.SoftLink("/data/demo_0")),
    "its arrays": lambda f: [f.__setitem__(f"data/demo_7/{key}", f[f"data/demo_0/{key}"]) for key in f["data/demo_0"]],
    "one array, softly": lambda f: (
        f.__delitem__("data/demo_1/actions"),
        f.__setitem__("data/demo_1/actions", h5py.SoftLink("/data/demo_0/actions")),
    ),
    "both, softly, of what lies elsewhere": lambda f: (
        f.move("data/demo_0", "there"),
        f.__setitem__("data/demo_0", h5py.SoftLink("/there")),
        f.__setitem__("data/demo_7", h5py.SoftLink("/there")),
    ),
    "a part of what lies elsewhere": lambda f: (
        f.move("data/demo_0", "there"),
        f.__setitem__("data/demo_0", h5py.SoftLink("/there")),
        f.__delitem__("data/demo_1/obs"),
        f.__setitem__("data/demo_1/obs", h5py.SoftLink("/there/obs")),
    ),
    "all of it, by a circle": lambda f: f.__setitem__("data/demo_0/again", f["data"]),
}


@pytest.mark.parametrize("kind", LINKS)
def test_one_object_by_two_names_is_no_second_demonstration(tmp_path: Path, kind: str) -> None:
    path = demonstrations(tmp_path / "d.hdf5", (6, 6))
    with h5py.File(path, "a") as file:
        LINKS[kind](file)
    with pytest.raises(RobotRLError, match=r"is a link to .*count double.*del file"):
        read(path)


def test_links_that_name_nothing_twice_are_followed(tmp_path: Path) -> None:
    path = demonstrations(tmp_path / "d.hdf5", (6, 6))
    with h5py.File(path, "a") as file:
        file["beside"] = file["data/demo_1"]  # not among the demonstrations
        file.move("data/demo_0", "there")
        file["data/demo_0"] = h5py.SoftLink("/there")
    assert len(read(path)[0]) == 2


@pytest.mark.parametrize(
    "names", [["episode_7"], ["demo_0", "episode_7"], ["demo_0/obs"], ["./demo_0"], ["demo_0", "demo_00"], ["demo_9"]]
)
def test_a_mask_that_names_what_is_no_demonstration_is_refused(tmp_path: Path, names: list[str]) -> None:
    path = demonstrations(tmp_path / "d.hdf5", (6, 6), masks={"mine": ["demo_0"]})
    with h5py.File(path, "a") as file:
        file.copy("data/demo_0", "data/episode_7")
        del file["mask/mine"]
        file["mask/mine"] = np.array(names, "S12")
    odd = next(name for name in names if name != "demo_0")
    with pytest.raises(RobotRLError, match=rf"mask 'mine' names {re.escape(odd)}, which is not in the file"):
        read(path, ImportConfig(filter_key="mine"))


# ------------------------------------------------------------------------------------------------------------- pictures


def told_sizes(told: str, *sizes: str) -> bool:
    return all(size in told for size in (*sizes, f"{len(sizes)} sizes", "resized"))


@pytest.mark.parametrize("side", [None, 8])
def test_pictures_of_another_size_are_told(tmp_path: Path, side: int | None) -> None:
    sizes = iter([(12, 16), (12, 16), (24, 20)])
    path = demonstrations(
        tmp_path / "d.hdf5", (6, 6, 6), obs={"front_image": lambda n: np.zeros((n, *next(sizes), 3), np.uint8)},
        next_obs=False,
    )  # fmt: skip
    episodes, told = read(path, image_size=side)
    stored = f"{side} x {side}" if side else "12 x 16"
    assert told_sizes(told, "12 x 16", "24 x 20") and "demo_2" in told and f"resized to {stored}" in told
    assert {e.obs["image/front"].shape[1:3] for e in episodes} == {(side or 12, side or 16)}
    assert "resized" not in read(demonstrations(tmp_path / "same.hdf5", (6, 6)))[1]


def test_alohas_compressed_pictures_of_another_size_are_told(tmp_path: Path) -> None:
    path = aloha(tmp_path / "d", rows=4)
    sides = [(6, 8), (6, 8), (12, 8), (6, 8)]
    packed = [cv2.imencode(".png", np.zeros((*side, 3), np.uint8))[1].ravel() for side in sides]
    with h5py.File(path / "episode_1.hdf5", "a") as file:
        del file["observations/images/cam_high"]
        wide = max(map(len, packed))
        file["observations/images/cam_high"] = np.stack([np.pad(p, (0, wide - len(p))) for p in packed])
    assert told_sizes(read(path, cameras=("cam_high",))[1], "6 x 8", "12 x 8")


# ---------------------------------------------------------------------------------------------------------------- ALOHA


def test_alohas_files_that_are_not_read_are_told(tmp_path: Path) -> None:
    path = aloha(tmp_path / "d", rows=4)
    aloha(path / "monday", 3, rows=4)
    shutil.copy(path / "episode_0.hdf5", path / "episode_9.HDF5")
    episodes, told = read(path)
    assert len(episodes) == 2
    assert "left out: " in told and "4 files" in told and "episode_9.HDF5" in told and "monday/episode_0.hdf5" in told
    assert ".hdf5" not in read(path / "monday")[1]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_alohas_file_by_two_names_is_no_second_episode(tmp_path: Path, link: Any) -> None:
    path = aloha(tmp_path / "d", rows=4)
    link(path / "episode_0.hdf5", path / "episode_7.hdf5")
    with pytest.raises(RobotRLError, match=r"episode_7.hdf5 is a link to .*episode_0.hdf5.*double"):
        read(path)


# --------------------------------------------------------------------------------------------------------------- stores


def stored(path: Path, low: float = -1.0, high: float = 1.0, *, seed: int = 0) -> EpisodeStore:
    """Two episodes, the second a success, of a robot whose ranges were only seen."""
    rng = np.random.default_rng(seed)
    channels = tuple(Channel(name, "", low, high, seen=True) for name in "ab")
    with EpisodeStore.create(path, Spec("w", "arm", channels, channels, (), 10.0, 9)) as made:
        for won in (0.0, 1.0):
            obs = {"state": rng.uniform(low, high, (6, 2)).astype(np.float32), "stamp/state": np.arange(6) / 10}
            reward = np.array([0, 0, 0, 0, won], np.float32)
            action = rng.uniform(-1, 1, (5, 2)).astype(np.float32)
            made.append(Episode(obs, action, reward, reward, np.zeros(5, bool), bool(won), not won))
    return EpisodeStore.open(path)


def linked(path: Path) -> Path:
    path.with_name("link").symlink_to(path)
    return path.with_name("link")


def copied(path: Path) -> Path:
    return Path(shutil.copytree(path, path.with_name("copy")))


def imported_twice(path: Path) -> Path:
    """The same episodes, of which other things are told."""
    store = EpisodeStore.open(path)
    with EpisodeStore.create(path.with_name("again"), store.spec) as again:
        for episode in store:
            again.append(replace(episode, meta={"source": "elsewhere"}))
    return again.path


def grown(path: Path) -> Path:
    """A copy to which another episode was added."""
    with EpisodeStore.create(copied(path), EpisodeStore.open(path).spec) as copy:
        copy.append(replace(copy[0], meta={"seed": 7}))
    return path.with_name("copy")


AGAIN = {
    "itself": lambda p: p, "with a slash": lambda p: f"{p}/", "by a detour": lambda p: f"{p}/../{p.name}",
    "by a link": linked, "a copy": copied, "a copy that grew": grown,
    "imported twice": imported_twice,
}  # fmt: skip
TAKE_SEVERAL = {
    "pretrain": ("--store", ()), "reward": ("--store", ()), "refine": ("--demos", ("--policy", "{policy}")),
    "distil": ("--demos", ("--agent", "{policy}")),
}  # fmt: skip


@pytest.mark.parametrize("how", AGAIN)
def test_no_episode_counts_twice(tmp_path: Path, how: str) -> None:
    first, other = stored(tmp_path / "a"), stored(tmp_path / "b", seed=1)
    joint.require_distinct([first, other])
    again = EpisodeStore.open(AGAIN[how](first.path))
    with pytest.raises(RobotRLError, match="count double"):
        joint.require_distinct([first, other, again])


@pytest.mark.parametrize("verb", TAKE_SEVERAL)
def test_every_verb_that_takes_several_stores_refuses_one_twice(
    tmp_path: Path, toy_demos: Path, toy_policy: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    option, words = TAKE_SEVERAL[verb]
    words = [word.format(policy=toy_policy) for word in words]
    assert main([verb, "--out", str(tmp_path / "r"), *words, option, str(toy_demos), f"{toy_demos}/"]) == 2
    assert "named twice" in capsys.readouterr().err and not (tmp_path / "r").exists()
    several = {v for v, call in VERBS.items() if "tuple[Path, ...]" in call.__annotations__.values()}
    assert several == {*TAKE_SEVERAL}, "a verb takes several stores and is not tried here"


def test_successes_are_not_their_own_negatives(
    tmp_path: Path, toy_demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--store", str(toy_demos), "--negatives", f"{toy_demos}/"]
    assert main(["reward", "--out", str(tmp_path / "r"), *words]) == 2
    assert "named twice" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- seen ranges


def of_policy(store: EpisodeStore, low: float, high: float) -> Any:
    """An agent, as far as its policy's Spec goes, that was trained on wider or narrower ranges than `store`."""
    channels = tuple(replace(c, low=low, high=high) for c in store.spec.state)
    spec = replace(store.spec, state=channels, action=channels)
    return SimpleNamespace(policy=SimpleNamespace(spec=spec, sees_images=False), label=lambda episode: {})


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-1.0, 3.0), (-40.0, 2.0)])
def test_demonstrations_ask_for_the_same_in_the_ranges_of_the_policy(tmp_path: Path, low: float, high: float) -> None:
    store = stored(tmp_path / "a")
    before = [control.to_physical(e.action, store.spec.action) for e in store]
    agent = of_policy(store, low, high)
    for was, now in zip(before, prior.labelled(agent, [store.path]), strict=True):
        asked = control.to_physical(now.action, agent.policy.spec.action)
        assert np.allclose(asked, was, atol=1e-6 * (high - low))


def test_what_lies_beyond_the_policys_ranges_is_refused_or_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run = stored(tmp_path / "a"), SimpleNamespace(sources={})
    agent = of_policy(store, -1.0, 0.5)
    with pytest.raises(RobotRLError, match=r"commands a from -1 to 1, beyond -1 to 0.5.*Pretrain"):
        prior.used_of(run, agent, [store.path])
    agent.policy.spec = replace(agent.policy.spec, action=store.spec.action)
    prior.used_of(run, agent, [store.path])
    assert "WARNING" in (told := capsys.readouterr().err) and "state a from -1 to 1, beyond -1 to 0.5" in told


# ----------------------------------------------------------------------------------------------------------------- bags

UNPACKED = 300 * 2**20


def packed(compression: str, data: bytes) -> bytes:
    if compression == "lz4":
        return pytest.importorskip("lz4.frame").compress(data)
    return pytest.importorskip("backports.zstd").compress(data) if compression else data


def record(kind: int, data: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(data)) + data


def mcap(path: Path, compression: str, said: int, data: bytes, at: int | None = None, start: int | None = None) -> Path:
    """A file of one chunk that holds `data`, `said` to unpack to so many bytes, and an index that finds it `at`."""
    name = compression.encode()
    head = bag_bounds.MCAP + record(1, struct.pack("<I4sI0s", 4, b"ros2", 0, b""))
    about = struct.pack(f"<I{len(name)}s", len(name), name)
    chunk = record(6, struct.pack("<QQQI", 0, 1, said, 0) + about + struct.pack("<Q", len(data)) + data)
    places = struct.pack("<QQQQI", 0, 1, len(head) if at is None else at, len(chunk), 0) + struct.pack("<Q", 0)
    index = record(8, places + about + struct.pack("<QQ", len(data), said))
    summary = len(head) + len(chunk) if start is None else start
    path.write_bytes(head + chunk + index + record(2, struct.pack("<QQI", summary, 0, 0)) + bag_bounds.MCAP)
    return path


@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
def test_chunks_that_unpack_as_said_are_read(tmp_path: Path, compression: str) -> None:
    data = bytes(range(256)) * 100
    bag_bounds.require_bounded(mcap(tmp_path / "a.mcap", compression, len(data), packed(compression, data)))


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_bag_that_unpacks_to_absurdly_much_is_refused(tmp_path: Path, compression: str) -> None:
    bomb = packed(compression, bytes(UNPACKED))
    if compression == "zstd":
        with pytest.raises(RobotRLError, match=r"unpack to 0.29 GiB, which no recording does"):
            bag_bounds.require_bounded(mcap(tmp_path / "honest.mcap", compression, UNPACKED, bomb))
    for data in (bomb, packed(compression, bytes(64)) + bomb):
        with pytest.raises(RobotRLError, match=r"said to unpack to 64 bytes"):
            bag_bounds.require_bounded(mcap(tmp_path / "a.mcap", compression, 64, data))


@pytest.mark.parametrize("wrong", [{"at": 3}, {"start": 40}, {"compression": "brotli"}, {"said": 10}])
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(RobotRLError, match=r"a\.mcap"):
        bag_bounds.require_bounded(
            mcap(tmp_path / "a.mcap", **{"compression": "", "said": 8, "data": bytes(8), **wrong})
        )


@pytest.mark.parametrize("begin", [b"\x28\xb5\x2f\xfd", b"\x5a\x2a\x4d\x18"])
def test_files_and_messages_packed_by_themselves_are_refused(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "a.db3.zstd").write_bytes(begin + bytes(30))
    with pytest.raises(RobotRLError, match=r"a\.db3\.zstd is packed as a whole.*zstd -d"):
        bag_bounds.require_bounded(tmp_path)
    reader = SimpleNamespace(readers=[SimpleNamespace(compression_mode="message")])
    with pytest.raises(RobotRLError, match="packed one by one.*ros2 bag convert"):
        bag_bounds.require_plain_messages(reader, tmp_path)


@pytest.mark.parametrize(("storage", "mode"), [("MCAP", "STORAGE"), ("MCAP", "FILE"), ("SQLITE3", "MESSAGE")])
def test_bags_as_their_own_writer_packs_them(tmp_path: Path, storage: str, mode: str) -> None:
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from rosbags.typesys import Stores, get_typestore

    types, kind = get_typestore(Stores.ROS2_JAZZY), "std_msgs/msg/Bool"
    writer = rosbag2.Writer(tmp_path / "bag", version=9, storage_plugin=getattr(rosbag2.StoragePlugin, storage))
    writer.set_compression(getattr(rosbag2.CompressionMode, mode), rosbag2.CompressionFormat.ZSTD)
    with writer:
        row = writer.add_connection("/success", kind, typestore=types)
        for k in range(500):
            writer.write(row, k, types.serialize_cdr(types.types[kind](data=bool(k % 2)), kind))
    if mode != "STORAGE":
        with pytest.raises(RobotRLError, match="compression_mode: " + mode.lower()), bag._opened(tmp_path / "bag"):
            pass
        return
    with bag._opened(tmp_path / "bag") as reader:
        found = [reader.deserialize(raw, kind).data for _, _, raw in reader.messages()]
    assert found == [bool(k % 2) for k in range(500)]


TABLES = "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT); "
PLAIN = TABLES + "CREATE TABLE messages(id INTEGER PRIMARY KEY, data BLOB); CREATE INDEX i ON messages(id)"


@pytest.mark.parametrize(
    "sql",
    [
        TABLES + "CREATE TABLE messages(id INTEGER PRIMARY KEY, data BLOB AS (zeroblob(900000000)))",
        PLAIN + "; CREATE VIEW message_definitions AS WITH RECURSIVE n(x) AS (VALUES(1) UNION SELECT x+1 FROM n) "
        "SELECT x FROM n",
    ],
)
def test_tables_that_are_computed_as_they_are_read_are_refused(tmp_path: Path, sql: str) -> None:
    for name, script in {"good.db3": PLAIN, "bad.db3": sql}.items():
        base = sqlite3.connect(tmp_path / name)
        base.executescript(script)
        base.close()
    bag_bounds.require_bounded(tmp_path / "good.db3")
    with pytest.raises(RobotRLError, match=r"bad\.db3: .* is computed as it is read"):
        bag_bounds.require_bounded(tmp_path / "bad.db3")


# ------------------------------------------------------------------------------------------------------------- commands

REFUSED = [
    ("pretrain --out {o} --store y --stps 3", "--stps.*perhaps --steps INT"),
    ("pretrain --out {o} --store y --steps abc", "--steps.*'abc'"),
    ("pretrain --out {o} --store y --max-episodes abc", "--max-episodes.*abc"),
    ("pretrain --store y --out {o} policy:flw", "policy:flw.*policy:flow, policy:diffusion"),
    ("refine --out {o}", "--policy PATH --demos"),
    ("export --store a --out {o} --to foo", "'foo'.*--to.*robomimic"),
    ("import --out", "--out"),
    ("imprt", "imprt.*import"),
    ("", "Expected one of.*pretrain"),
]


@pytest.mark.parametrize("columns", ["20", "80"])
@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_a_command_that_is_not_understood_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any, words: str, said: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(words.format(o=tmp_path / "out").split()) == 2
    told = capsys.readouterr().err
    assert told.startswith("robot-rl: ") and told.count("\n") == 1 and re.search(said, told)
    assert re.search("See `robot-rl( [a-z]+)? --help`$", told) and not re.search("[│╭╮╰╯─]", told)
    assert os.environ["COLUMNS"] == columns and not (tmp_path / "out").exists()


def test_what_stands_in_a_box_is_kept() -> None:
    dashes = " Title\n ---- \n  said so \n  ---- \n  Perhaps you meant:\n      --a INT\n          what it is\n"
    assert in_a_line(dashes) == "said so; perhaps --a INT is meant"
    box = "╭─ Title ─╮\n│ said so  │\n│ ──────── │\n│ For full helptext, run x │\n╰──────────╯"
    assert in_a_line(box) == "said so" and in_a_line("") == "the command cannot be understood"


def test_help_is_still_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--help"]) == 0
    assert "video-of" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["", " ", "\t"])
def test_an_empty_value_is_refused_by_the_options_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for verb, call in VERBS.items():
        for option in {"out", "store", "source", "demos", "robot"} & {*call.__annotations__}:
            for words in ([f"--{option}", word], [f"--{option}={word}"], [f"--{option}", "a", word]):
                assert main([verb, *words]) == 2
                assert f"--{option} is empty" in capsys.readouterr().err
    with pytest.raises(Exception, match="it is empty"):
        ros_arguments.place(word)
    assert not [*tmp_path.iterdir()] and ros_arguments.place("a") == Path("a")


# ------------------------------------------------------------------------------------------------------- where to write


@pytest.mark.parametrize("place", ["{s}", "{s}/", "{s}/000000", "{s}/plots", "{link}", "{run}"])
def test_inspect_writes_neither_into_a_store_nor_into_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    path = stored(run / "demos").path
    (path / ".lock").unlink()  # as of a copy
    out = place.format(s=path, link=linked(path), run=run)
    before = sorted(run.rglob("*"))
    assert main(["inspect", "--store", str(path), "--out", out]) == 2
    assert "holds nothing else" in capsys.readouterr().err and sorted(run.rglob("*")) == before
    with outputs.folder(tmp_path / "plots"):
        pass


# ---------------------------------------------------------------------------------------------------- what decides what


@pytest.mark.parametrize("change", ["success", "summary", "length", "gone"])
def test_a_result_that_was_changed_is_played_again(tmp_path: Path, monkeypatch: Any, change: str) -> None:
    """It decides what is promoted. Of `metrics.jsonl` nothing is decided: see SECURITY.md."""
    rows = [
        {"seed": s, "success": True, "length": 5 + s % 3, "best_score": 1.0, "roughness": 0.1}
        for s in evaluate.start_states(0, 3)
    ]
    whole: dict[str, Any] = {"summary": evaluate.summary(rows), "episodes": rows}
    played: list[str] = []
    monkeypatch.setattr(evaluate, "evaluate", lambda *a, **k: played.append(k["label"]) or whole)
    file = tmp_path / "evaluation_base.json"

    def once() -> dict[str, Any]:
        return evaluate.evaluate_once(file, None, None, episodes=3, label="base")  # type: ignore[arg-type]

    assert once() == whole and once() == whole and played == ["base"]
    torn = json.loads(file.read_text())
    if change == "summary":
        torn["summary"]["successes"] += 1
    elif change == "gone":
        del torn["episodes"][1]["best_score"]
    else:
        torn["episodes"][1][change] = 0
    file.write_text(json.dumps(torn))
    assert once() == whole and played == ["base", "base"] and json.loads(file.read_text()) == whole


def test_nothing_but_the_report_reads_the_metrics() -> None:
    readers = {
        f.name for f in Path(outputs.__file__).parent.rglob("*.py") if re.search(r"journal\.rows\(", f.read_text())
    }
    assert readers == {"report.py"}
