"""A real Ray cluster of two nodes on this machine: the same episodes as one process, though a node is killed."""

from __future__ import annotations

import os
import socket
import time
from functools import partial

import numpy as np
import pytest

from robot_rl import checkpoints, cluster, vector
from robot_rl.collect import collect
from robot_rl.evaluate import evaluate, start_states
from robot_rl.types import RobotRLError
from sim.toy import ToyEnv, ToyOperator

os.environ |= {  # read when Ray is imported
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for "this node is 127.0.0.1"
    "RAY_worker_niceness": "0",  # else anything else on this machine starves its workers
}
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def two_nodes():
    """A head that only coordinates, and two nodes that play; each its own raylet, bound to 127.0.0.1."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    small.pop("include_dashboard")
    nodes = [made.add_node(num_cpus=1, **small) for _ in range(2)]
    yield made, nodes
    made.shutdown()


class Slow(ToyEnv):
    """Takes its time, so that a node can be killed in the middle."""

    def step(self, action):
        time.sleep(0.002)
        return super().step(action)


def test_two_nodes_play_what_one_process_plays_though_one_is_killed(two_nodes, toy_policy):
    made, nodes = two_nodes
    play = partial(checkpoints.load_agent, toy_policy)
    seeds = start_states(0, 200)
    alone = list(vector.episodes(ToyEnv, play, seeds, 1))
    got = []
    for episode in cluster.episodes(vector.Share(Slow, play), seeds, made.address):
        got.append(episode)
        if len(got) == 50:
            made.remove_node(nodes[1], allow_graceful=False)
    assert [e.meta["seed"] for e in got] == seeds, "none lost, none doubled, in order"
    assert all(np.array_equal(a.action, b.action) for a, b in zip(alone, got, strict=True))
    assert evaluate(ToyEnv, play, episodes=9, ray=made.address) == evaluate(ToyEnv, play, episodes=9)


def test_a_store_collected_on_a_cluster_is_the_same(two_nodes, tmp_path):
    made, _ = two_nodes
    operator = partial(ToyOperator, 0.3)
    here = collect(tmp_path / "here", ToyEnv().spec, ToyEnv, operator, episodes=10)
    there = collect(tmp_path / "there", ToyEnv().spec, ToyEnv, operator, episodes=10, ray=made.address)
    files = [sorted(p.relative_to(store) for p in store.rglob("*") if p.is_file()) for store in (here, there)]
    assert files[0] == files[1]
    assert all((here / f).read_bytes() == (there / f).read_bytes() for f in files[0])


def refused() -> ToyEnv:
    raise RobotRLError("there is no such world")


def test_what_the_user_can_mend_comes_back_from_a_node_as_it_is(two_nodes):
    made, _ = two_nodes
    with pytest.raises(RobotRLError, match="there is no such world"):
        list(cluster.episodes(vector.Share(refused, ToyOperator), [1, 2], made.address))


def test_a_cluster_that_is_not_there_is_told_within_ten_seconds(tmp_path):
    with socket.socket() as closed, socket.socket() as mute:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        mute.bind(("127.0.0.1", 0))
        mute.listen()  # somebody listens, but it is no Ray
        for address in (f"127.0.0.1:{s.getsockname()[1]}" for s in (closed, mute)):
            start = time.monotonic()
            with pytest.raises(RobotRLError, match=f"answers at '?{address}"):
                collect(tmp_path / "store", ToyEnv().spec, ToyEnv, ToyOperator, episodes=3, ray=address)
            assert time.monotonic() - start < 10
            assert not (tmp_path / "store").exists(), "nothing half-written"
    with pytest.raises(RobotRLError, match="HOST:PORT, not 'nonsense'"):
        cluster.connect("nonsense")
