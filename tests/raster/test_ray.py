"""A Ray cluster of two nodes on this machine, one of which is killed half-way."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from models import ColourModel, write_raster
from test_executors import load, maps_of

from ovrs.raster import LocalExecutor

pytestmark = pytest.mark.heavy


class Slow(ColourModel):
    def score(self, windows):
        time.sleep(0.05)
        return super().score(windows)


def load_slow(number: int) -> Slow:
    return Slow(cell=4)


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": here}})
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def scenes(tmp_path):
    rng = np.random.default_rng(0)
    return [write_raster(tmp_path / f"{i}.tif", rng.integers(0, 256, (3, 300, 150), dtype=np.uint8)) for i in range(2)]


def test_cluster_changes_no_pixel_even_if_a_node_is_killed(tmp_path, cluster, scenes, caplog):
    from ovrs.raster.ray_executor import RayExecutor

    cluster, second = cluster
    expected = maps_of(scenes, tmp_path / "local", LocalExecutor(load(0)))
    executor = RayExecutor(load_slow)
    while executor._starting:  # one worker on each node
        executor._gather()

    def kill():
        while not list((tmp_path / "ray").glob("1_parts/labels_*.tif")):
            time.sleep(0.01)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    found = maps_of(scenes, tmp_path / "ray", executor)
    killer.join()
    assert found == expected
    assert "a worker was lost" in caplog.text
