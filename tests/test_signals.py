"""What ends a verb from outside, in real processes: Ctrl-C at any moment, a closed pipe, a shell that stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drivers import interrupts
from robot_rl import progress, start

ROOT = Path(__file__).parents[1]
WORDS = {
    "evaluate": "--agent {policy} --episodes 100000 --workers 2",
    "pretrain": "--out {out} --store {demos} --steps 1000000",
    "refine": "--out {out} --policy {policy} --demos {demos} --steps 1000000",
    "demo": "--out {out} --world toy",
    "collect": "--out {out} --world toy --episodes 100000 --workers 2",
    "import": "--source {demos} --out {out}",
}


@pytest.fixture
def begin(toy_demos, toy_policy, tmp_path):
    """Starts a verb in a process group of its own, as a terminal does."""

    def begin(verb, module="robot_rl"):
        words = WORDS[verb].format(demos=toy_demos, policy=toy_policy, out=tmp_path / "out").split()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", module, verb, *words],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, 
            start_new_session=True,
        )  # fmt: skip

    return begin


def quiet(process, number=signal.SIGINT):
    """Send a signal to the whole group, as Ctrl-C does; what the process said must be one line, and no traceback."""
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    ours = [line for line in err.splitlines() if line.startswith("robot-rl:")]
    assert process.returncode == 128 + number, (process.returncode, err)
    assert "Traceback" not in out + err and "Error" not in err, err
    assert len(ours) == 1 and "interrupted" in ours[0], err


@pytest.mark.parametrize(
    ("verb", "after"), [("import", 0.0), ("demo", 0.4), ("pretrain", 1.0), ("collect", 2.0), ("refine", 4.0)]
)
def test_fault_f58_ctrl_c_is_quiet_from_the_first_moment(verb, after, begin):
    process = begin(verb)
    while not handles(process.pid, signal.SIGTERM):  # until a bare interpreter, which handles SIGINT only, is through
        time.sleep(0.005)
    time.sleep(after)
    quiet(process, signal.SIGTERM if verb == "collect" else signal.SIGINT)


def test_fault_f58_workers_end_quietly_with_the_verb(begin):
    process = begin("evaluate", "robot_rl.cli")
    deadline = time.monotonic() + 60
    while len(children(process.pid)) < 3 and time.monotonic() < deadline:  # resource tracker, two workers
        time.sleep(0.1)
    workers = children(process.pid)
    time.sleep(1.0)  # they are importing
    quiet(process)
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers and not any(Path(f"/proc/{pid}").exists() for pid in workers)


def handles(pid, number):
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return int(caught.split()[1], 16) >> (number - 1) & 1


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def test_fault_f58_a_pipe_that_is_closed_early_is_no_error(toy_demos):
    code = "import sys, robot_rl.start; sys.argv = sys.argv[1:]; robot_rl.start.main()"
    command = f"{sys.executable} -c '{code}' robot-rl inspect --store {toy_demos} | head -1; echo ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.splitlines()[0].startswith("store") and run.stderr == ""
    assert run.stdout.splitlines()[1] in ("0", str(start.CLOSED))


def raising(error):
    def run():
        raise error

    return run


def test_what_a_place_or_the_memory_refuses_is_one_line_and_our_own_faults_are_not_hidden(capsys):
    before = [signal.getsignal(number) for number in start.SIGNALS]
    assert start.guarded(raising(OSError(28, "No space left on device", "/x/y"))) == 2
    assert "/x/y: No space left on device" in capsys.readouterr().err
    assert start.guarded(raising(RuntimeError("DefaultCPUAllocator: can't allocate memory"))) == 2
    assert "not enough memory" in capsys.readouterr().err
    assert start.guarded(raising(SystemExit(1))) == 1
    for fault in (RuntimeError("a shape"), ValueError("a value"), OSError(9, "Bad file descriptor")):
        with pytest.raises(type(fault)):
            start.guarded(raising(fault))
    assert [signal.getsignal(number) for number in start.SIGNALS] == before


@pytest.mark.parametrize("turn", [1, 2])
def test_what_a_node_does_with_signals_in_the_process_of_the_tests_ends_with_its_test(turn):
    assert signal.getsignal(signal.SIGTERM) is not interrupts._remember
    asked = interrupts.listen()
    assert not asked()
    signal.raise_signal(signal.SIGTERM)
    assert asked()


def test_without_a_terminal_there_is_a_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = progress.progress("refine", 1000, 100)
    for _ in range(70):
        now[0] += 1.0
        shown.update(5)
    shown.set_postfix_str("3 attempts")
    now[0] += 29
    shown.update()
    shown.close()
    assert capsys.readouterr().err.splitlines() == [
        "refine: 250 of 1,000 after 30 s, about 150 s to go",
        "refine: 400 of 1,000 after 60 s, about 120 s to go",
        "refine: 451 of 1,000 after 99 s, about 155 s to go, 3 attempts",
    ]
    assert list(progress.told(range(3), "few")) == [0, 1, 2]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_fault_f58_a_node_whose_input_or_output_is_closed_gives_no_socket_their_numbers(closed):
    code = "import sys; sys.argv = ['-m']; import drivers, socket; sys.exit(socket.socket().fileno() < 3)"
    run = subprocess.run(["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], cwd=ROOT)
    assert run.returncode == 0
