"""Clusters of which a machine is lost, or to which one is added."""

import time

import pytest

from statesize.errors import InputError
from statesize.parallel.ray import RayCluster

pytest.importorskip("ray")
# The warnings are Ray's own; where a task of a lost machine does not come back, it would wait for ever.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield machines
    machines.shutdown()


def staying(lost, begun):
    """Work that yields its machine and then ends, but stays on one that is lost; others wait for that one."""

    # Pickled by value, as Ray's processes do not have the modules of the tests.
    def work(task):
        import ray

        machine = ray.get_runtime_context().get_node_id()
        if machine == lost:
            begun.touch()
        while not begun.exists():
            time.sleep(0.1)
        yield machine
        while machine == lost:
            time.sleep(0.1)
        yield f"end of {task}"

    return lambda: work


def test_the_task_of_a_lost_machine_is_done_by_another(cluster, tmp_path):
    lost = cluster.add_node(num_cpus=1)
    values = {"first": [], "second": []}
    with RayCluster(cluster.address)(staying(lost.node_id, tmp_path / "begun")) as workers:
        for done in workers(values):
            values[done.task].append(done.get())
            if done.value == lost.node_id:
                cluster.remove_node(lost, allow_graceful=False)
    assert lost.node_id in {machine for machine, _ in values.values()}
    assert [end for _, end in values.values()] == ["end of first", "end of second"]


def test_where_no_machine_is_left_that_has_room_the_run_ends(cluster, tmp_path):
    large = cluster.add_node(num_cpus=2)
    with RayCluster(cluster.address, cpus=2)(staying(large.node_id, tmp_path / "begun")) as workers:
        run = workers(["task"])
        assert next(run).value == large.node_id
        cluster.remove_node(large, allow_graceful=False)
        with pytest.raises(InputError):
            next(run)
