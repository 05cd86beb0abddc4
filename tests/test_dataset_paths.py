"""Law: a dataset reads nothing outside its folder, whatever it calls its files; patterns of paths cost nothing."""

import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.formats.paths import filled, inside, require_contained
from robot_rl.types import RobotRLError

pieces = st.sampled_from(["..", ".", "", "/", "a", "data", "link", "~", "a/..", "\0", "//etc", "...", "chunk-000"])


@given(st.lists(pieces, max_size=6), st.booleans())
def test_whatever_a_file_is_called_its_path_lies_inside_or_is_refused(tmp_path_factory, parts, joined):
    root = tmp_path_factory.mktemp("dataset")
    os.symlink("/etc", root / "link")
    name = "/".join(parts) if joined else "".join(parts)
    try:
        path = inside(root, name)
    except RobotRLError as error:
        assert str(root) in str(error)
        return
    assert path.resolve().is_relative_to(root)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "", "x" * 2000, "a\0b"])
def test_fault_f50_a_path_out_of_the_dataset_is_refused(tmp_path, name):
    with pytest.raises(RobotRLError, match=r"outside its own folder|characters is needed"):
        inside(tmp_path, name)


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "chain"])
def test_fault_f50_a_link_out_of_the_dataset_is_refused(tmp_path, target):
    (tmp_path / "secret").write_text("")
    root = tmp_path / "dataset"
    (root / "data").mkdir(parents=True)
    os.symlink("/etc", root / "data" / "chain")
    os.symlink(target if target != "../secret" else "../../secret", root / "data" / "file")
    for attempt in (lambda: inside(root, "data/file"), lambda: require_contained(root)):
        with pytest.raises(RobotRLError, match="link out of its dataset"):
            attempt()


def test_links_inside_links_of_the_cache_and_a_linked_root_are_followed(tmp_path):
    cache = tmp_path / "datasets--lerobot--pusht"
    snapshot = cache / "snapshots" / "abc"
    (snapshot / "meta").mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "1").write_text("{}")
    os.symlink("../../../blobs/1", snapshot / "meta" / "info.json")
    os.symlink("info.json", snapshot / "meta" / "again.json")
    os.symlink(snapshot, tmp_path / "root")
    for root in (snapshot, tmp_path / "root"):
        require_contained(root)
        assert inside(root, "meta/again.json").read_text() == "{}"
        assert inside(root, "data/not/there.parquet") == root / "data/not/there.parquet"


def test_fault_f50_a_cache_whose_blobs_lead_elsewhere_opens_nothing(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "key").write_text("secret")
    snapshot = tmp_path / "cache" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    os.symlink(tmp_path / "home", tmp_path / "cache" / "blobs")
    os.symlink("../../blobs/key", snapshot / "key")
    with pytest.raises(RobotRLError, match="link out"):
        inside(snapshot, "key")


def test_fault_f50_pipes_devices_and_circles_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RobotRLError, match="pipe"):
        inside(tmp_path, "pipe")
    os.unlink(tmp_path / "pipe")
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    for attempt in (lambda: inside(tmp_path, "a"), lambda: require_contained(tmp_path)):
        with pytest.raises(RobotRLError, match="cannot be read"):
            attempt()


def test_patterns_of_paths_are_filled_as_lerobot_means_them():
    pattern = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    values = {"video_key": "observation.images.top", "chunk_index": 7, "file_index": 1234}
    assert filled(pattern, values, "info.json") == pattern.format(**values)


HOSTILE = [
    "{episode_index:02000000000d}", "{episode_index:2000000000}", "{episode_index:{episode_index}}",
    "{episode_index.__class__}", "{episode_index!r}", "{0}", "{}", "{other}", "{video_key:9}", "{", 5, None,
]  # fmt: skip


@pytest.mark.parametrize("pattern", HOSTILE)
def test_fault_f52_a_pattern_that_asks_for_memory_or_attributes_is_refused(pattern):
    tracemalloc.start()
    with pytest.raises(RobotRLError, match=r"^meta/info\.json: "):
        filled(pattern, {"episode_index": 10**9, "video_key": "top"}, "meta/info.json")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
