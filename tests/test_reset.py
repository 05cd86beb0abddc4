"""Nobody re-arms a stopped arm but a person: no program of ours calls the arm's reset, and the person's tool asks."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from drivers.policy_node import PolicyRunner, build
from robot_rl.types import RobotRLError
from tests.lockstep import ROBOT, Bench
from tests.test_architecture import FILES, ROOT

TOOL = ROOT / "drivers" / "reset_arm.py"


def strings(tree: ast.AST) -> list[ast.Constant]:
    """Every string in it, whole or a part of an f-string."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def names_reset(text: str) -> bool:
    """Whether it is the name of the arm's service, in any namespace; a simulated world's is another one."""
    return text.strip("/").split("/")[-1] == "reset" and text.strip("/") != "world/reset"


def makes_clients(tree: ast.AST) -> bool:
    called = {n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
    return "create_client" in called


def test_no_module_has_a_client_of_the_arms_reset_but_the_persons_tool():
    callers = [file for file in FILES if may_call_reset(ast.parse(file.read_text()))]
    assert callers == [TOOL]


@pytest.mark.parametrize(
    "service", ['"reset"', '"/left/reset"', 'f"{self._source}/reset"', "node.resolve_service_name('reset')"]
)
def test_a_client_of_it_would_be_found(service):
    source = (ROOT / "drivers" / "ros_arm.py").read_text()
    assert not may_call_reset(ast.parse(source))
    assert may_call_reset(ast.parse(source + f"\ndef bad(self, node):\n    node.create_client(Trigger, {service})\n"))


def may_call_reset(tree: ast.AST) -> bool:
    """Whether a module that makes clients names the arm's reset other than in a sentence to a person."""
    if not makes_clients(tree):
        return False
    resolved = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and "resolve_service_name" in ast.unparse(n.func)]
    parents = {id(child): parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    told = {id(s) for c in resolved if isinstance(parents[id(c)], ast.FormattedValue) for s in strings(c)}
    return any(names_reset(s.value) for s in strings(tree) if id(s) not in told)


def test_no_module_starts_the_persons_tool_or_opens_a_service_by_hand():
    for file in FILES:
        if file == TOOL:
            continue
        tree, text = ast.parse(file.read_text()), file.read_text()
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        assert "reset_arm" not in imported and "import drivers.reset_arm" not in text, file
        assert "rclpy.client" not in text and "service call" not in text, file
        if "reset_arm" in text:  # it is told to a person
            assert not {"subprocess", "runpy", "pexpect"} & {w.split(".")[0] for w in imports(tree)}, file


def imports(tree: ast.AST) -> set[str]:
    found = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    return found | {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}


def test_without_a_terminal_the_tool_asks_nobody_and_resets_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "drivers.reset_arm"], input="reset\n", capture_output=True, text=True, cwd=ROOT,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "in a terminal" in done.stderr and "Traceback" not in done.stderr


class Armed:
    """Playing a policy that never ends of itself."""

    def __init__(self):
        self.bench = Bench()
        self.runner = PolicyRunner(ROBOT, lambda: self.play)
        self.runner.env, self.runner._play = self.bench.env(), self.play
        self.bench.prepare(0)

    def play(self, env, ended):
        while not ended():
            pass


@pytest.mark.parametrize("transition", ["deactivate", "close", "finalize"])
def test_fault_f39_a_transition_lets_go_of_the_arm_before_it_waits_for_the_policy(transition):
    armed = Armed()
    order, end = [], armed.runner.env.end
    armed.runner.env.end = lambda: (order.append("let go"), end())
    armed.runner.activate()
    join = armed.runner._thread.join
    armed.runner._thread.join = lambda: (order.append("joined"), join())
    getattr(armed.runner, transition)()
    assert order == ["let go", "joined"] and "let go" in armed.bench.stopped
    assert armed.runner.finished == (transition == "finalize") and not armed.runner.error


def test_fault_f39_an_error_in_a_transition_lets_go_too(monkeypatch):
    rclpy = pytest.importorskip("rclpy")
    from rclpy.lifecycle import TransitionCallbackReturn

    armed = Armed()
    rclpy.init(domain_id=101)
    try:
        node = build(armed.runner)
        armed.runner.activate()
        monkeypatch.setattr(armed.runner, "configure", lambda: 1 / 0)
        assert node.on_configure(None) == TransitionCallbackReturn.ERROR  # rclpy calls `on_error` then
        assert node.on_error(None) == TransitionCallbackReturn.SUCCESS
        assert "let go" in armed.bench.stopped and "ZeroDivisionError" in armed.runner.error
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


def test_a_fault_of_the_policy_stops_the_arm_and_the_next_episode_waits_for_a_person():
    bench = Bench()
    env = bench.env()
    env.reset(0)
    env.fail("the policy gives no numbers")
    with pytest.raises(RobotRLError, match="gives no numbers.*only a person"):
        env.reset(0)
