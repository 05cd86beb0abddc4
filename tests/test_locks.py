"""Laws of places: one process writes at a time and the second hears of the first; what cannot be written is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from robot_rl import evaluate as evaluating
from robot_rl import outputs
from robot_rl.cli import main
from robot_rl.episodes import EpisodeStore
from robot_rl.outputs import LEARN, PLAY, WHOLE
from robot_rl.types import RobotRLError

ROOT = Path(__file__).parents[1]
HOLD = """
import sys
from pathlib import Path
from robot_rl import outputs
how, path, *parts = sys.argv[1:]
hold = outputs.folder(Path(path), parts) if how == "folder" else getattr(outputs, how)(Path(path))
with hold:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(how, path, *parts):
    """Another process that holds a place until the end of the block, and is then killed."""
    command = [sys.executable, "-c", HOLD, how, str(path), *parts]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def taken(how, path, *parts):
    with outputs.folder(path, parts) if how == "folder" else getattr(outputs, how)(path):
        return True


@pytest.mark.parametrize("how", ["folder", "new", "file"])
def test_fault_f56_the_second_hears_who_the_first_is_and_the_kernel_frees_what_the_dead_held(how, tmp_path):
    place, parts = tmp_path / "deep" / "place", WHOLE if how == "folder" else ()
    with holder(how, place, *parts) as process:
        with pytest.raises(
            RobotRLError, match=rf"being written by process {process.pid} \(-c, since 2\d\d\d-"
        ) as error:
            taken(how, place, *parts)
        assert "\n" not in str(error.value)
    assert taken(how, place, *parts), "killed"
    assert not list(tmp_path.rglob(".lock*")), "nothing stays behind"


def test_actor_and_learner_share_a_folder_and_nobody_else_does(tmp_path):
    for mine, theirs, together in (
        ((PLAY,), (LEARN,), True), ((PLAY,), (PLAY,), False), (WHOLE, (LEARN,), False), ((LEARN,), WHOLE, False),
    ):  # fmt: skip
        with outputs.folder(tmp_path / "run", mine):
            code = f"import sys; sys.argv[1:] = ['folder', {str(tmp_path / 'run')!r}, *{theirs}]\n{HOLD}"
            result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, input="", capture_output=True, text=True)
        assert (result.returncode == 0) is together, result.stderr
        assert not (tmp_path / "run").exists(), "made for nothing"


def test_one_process_may_hold_a_folder_twice_and_a_link_is_not_followed(tmp_path):
    with outputs.folder(tmp_path / "run"), outputs.folder(tmp_path / "run"):
        (tmp_path / "run" / "something").touch()
    assert [f.name for f in (tmp_path / "run").iterdir()] == ["something"]
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run" / ".lock-play").symlink_to(tmp_path / "precious")
    with pytest.raises(RobotRLError, match="cannot be written"):
        taken("folder", tmp_path / "run", PLAY)
    (tmp_path / ".part-new").symlink_to(tmp_path / "precious")
    with outputs.new(tmp_path / "new") as part:
        part.mkdir()
    assert (tmp_path / "precious").read_text() == "precious"


def cli(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "robot_rl", *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_imports_and_two_pretrains_at_once_leave_one_whole_result_each(toy_demos, tmp_path):
    assert main(["export", "--store", str(toy_demos), "--out", str(tmp_path / "demos.hdf5")]) == 0
    words = {
        "import": ("--source", tmp_path / "demos.hdf5"),
        "pretrain": ("--store", toy_demos, "--steps", 30, "--batch", 8, "--save-every", 1),
    }
    for verb, more in words.items():
        pair = [cli(verb, "--out", tmp_path / verb, *more) for _ in range(2)]
        said = [process.communicate()[1] for process in pair]
        codes = [process.returncode for process in pair]
        assert 0 in codes and set(codes) <= {0, 2}, said
        if 2 in codes:
            told = said[codes.index(2)]
            assert ("being written by process" in told or "exists" in told) and "Traceback" not in told
    assert len(EpisodeStore.open(tmp_path / "import")) == len(EpisodeStore.open(toy_demos))
    rows = [json.loads(line)["step"] for line in (tmp_path / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, 31))
    left = {f.name for f in tmp_path.iterdir()}
    assert left == {"demos.hdf5", "import", "pretrain"}


VERBS = {
    "pretrain": ("--store", "{demos}", "--steps", "1"),
    "refine": ("--policy", "{policy}", "--demos", "{demos}"),
    "distil": ("--agent", "{policy}", "--demos", "{demos}"),
    "demo": ("--world", "toy"),
    "collect": ("--world", "toy", "--episodes", "1"),
    "inspect": ("--store", "{demos}"),
    "evaluate": ("--agent", "{policy}", "--episodes", "1", "--workers", "1"),
    "export": ("--store", "{demos}", "--to", "lerobot"),
    "import": ("--source", "{demos}"),
    "reward": ("--store", "{demos}"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_cannot_be_written_is_named_before_any_work(verb, toy_demos, toy_policy, tmp_path, capsys):
    words = [word.format(demos=toy_demos, policy=toy_policy) for word in VERBS[verb]]
    (tmp_path / "file").write_text("precious")
    places = [tmp_path / "file" / "below", Path("/proc/nowhere/at/all")]
    places += [] if verb == "evaluate" else [tmp_path / "file"]
    for place in places:
        assert main([verb, "--out", str(place), *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("robot-rl: ") and said.count("\n") == 1 and str(place).split("/below")[0] in said
    assert (tmp_path / "file").read_text() == "precious" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_named_before_any_work_and_loses_no_result(toy_policy, tmp_path, capsys, monkeypatch):
    words = ["evaluate", "--agent", str(toy_policy), "--episodes", "2", "--workers", "1", "--out"]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "write", full)
        assert main([*words, str(tmp_path / "result.json")]) == 2
        out, err = capsys.readouterr()
        assert "/2 succeed" in out and "No space left on device" in err and err.count("\n") == 1
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1))
    for verb in (["evaluate", "--agent", "x"], ["pretrain", "--store", "x"], ["import", "--source", "x"]):
        assert main([*verb, "--out", str(tmp_path / "out")]) == 2
        assert "0 MiB are free" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
