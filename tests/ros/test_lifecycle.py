"""The policy node's lifecycle, asked for every transition in every state: what is illegal is refused, and no harm."""

from __future__ import annotations

import time

import pytest

IDS = range(256)  # all that a request can carry
LABELS = (
    *("create", "configure", "cleanup", "activate", "deactivate", "shutdown", "destroy", "transition_success"),
    *("on_error_failure", "transition_error", "Configure", " configure", "nonsense", "\x1b[2J", "c" * 100_000),
)
WAYS = {  # of all states in which a request can come: how it is reached, and what it takes
    "unconfigured": ((), {"configure": 1, "shutdown": 5}),
    "inactive": (("configure",), {"cleanup": 2, "activate": 3, "shutdown": 6}),
    "active": (("configure", "activate"), {"deactivate": 4, "shutdown": 7}),
    "finalized": (("shutdown",), {}),
}


class Runner:
    """What the node runs; which of its transitions came."""

    def __init__(self):
        self.came, self.error = [], ""

    def __getattr__(self, name):
        def transition():
            self.came.append(name)

        transition.__name__ = name
        return transition


@pytest.fixture
def ros(domain):
    import rclpy

    rclpy.init(domain_id=domain)
    yield rclpy
    rclpy.try_shutdown()


@pytest.fixture
def lifecycle(ros):
    """`make()` gives a new node, its runner, and `ask(label or id)`: the answer over DDS, and then the state."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetState
    from rclpy.executors import SingleThreadedExecutor

    from drivers.policy_node import build

    executor, asker = SingleThreadedExecutor(), ros.create_node("asker")
    executor.add_node(asker)
    made = []

    def make():
        while made:
            executor.remove_node(made[-1])
            made.pop().destroy_node()
        runner = Runner()
        made.append(node := build(runner))
        executor.add_node(node)
        change = asker.create_client(ChangeState, "policy_node/change_state")
        state = asker.create_client(GetState, "policy_node/get_state")

        def answer(client, request):
            end, future = time.monotonic() + 5.0, client.call_async(request)
            while not future.done():
                assert time.monotonic() < end, f"no answer to {request}"
                executor.spin_once(timeout_sec=0.1)
            return future.result()

        def ask(wanted):
            wish = Transition(label=wanted) if isinstance(wanted, str) else Transition(id=wanted)
            success = answer(change, ChangeState.Request(transition=wish)).success
            return success, answer(state, GetState.Request()).current_state.label

        assert change.wait_for_service(5.0) and state.wait_for_service(5.0)
        return node, runner, ask

    yield make
    executor.shutdown()


@pytest.mark.parametrize("state", WAYS)
def test_fault_f39_each_illegal_request_in_each_state_is_answered_no_and_changes_nothing(lifecycle, state):
    way, legal = WAYS[state]
    _, runner, ask = lifecycle()
    for step in way:
        assert ask(step)[0]
    before = list(runner.came)
    for wanted in (*IDS, *LABELS):
        if wanted not in (*legal, *legal.values()):
            assert ask(wanted) == (False, state), wanted
    assert runner.came == before and runner.error == "", "the policy plays on as if nobody had asked"


def test_what_a_state_takes_it_takes_by_name_and_by_number(lifecycle):
    for way, legal in WAYS.values():
        for wanted in (*legal, *legal.values()):
            _, runner, ask = lifecycle()
            for step in way:
                assert ask(step)[0]
            assert ask(wanted)[0] and len(runner.came) == len(way) + 1, (way, wanted)


def test_fault_f39_a_refusal_names_the_transition_the_state_and_what_it_takes(lifecycle, monkeypatch):
    node, _, ask = lifecycle()
    told = []
    log = type("Log", (), {level: lambda _, text: told.append(text) for level in ("info", "warning", "error")})()
    monkeypatch.setattr(node, "get_logger", lambda: log)
    assert ask("configure")[0] and ask("activate")[0]
    for wanted in (1, 99, "n" * 5_000_000):
        assert not ask(wanted)[0]
    takes = "is refused: the node is active; it takes 'deactivate', 'shutdown'"
    assert told[:2] == [f"'configure' {takes}", f"the transition 99 {takes}"]
    assert told[2] == f"'{'n' * 100}... (5000000 characters)' {takes}" and len(told) == 3
