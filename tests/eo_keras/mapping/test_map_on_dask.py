"""Maps on a Dask cluster of two worker processes, one of which is killed."""

import pytest

from eo_keras.mapping.mapper import STAGE, map_scenes
from eo_keras.mapping.options import MapOptions
from tests.harness import products
from tests.harness.building import bytes_of
from tests.harness.dask_cluster import Cluster


@pytest.mark.slow
def test_a_map_has_the_same_bytes_as_a_local_one_also_when_a_worker_is_killed(make_run, tmp_path):
    make_run(tmp_path / "run", "uint16", ("B04", "B03", "B02"))
    scene = products.write_product(tmp_path / "scene", size=256, bands=("B04", "B03", "B02"))
    killed = []

    def mapped(name, progress=None, **engine):
        (tmp_path / name).mkdir()
        output = str(tmp_path / name / "map.tif")
        options = {"run_dir": str(tmp_path / "run"), "scenes": (str(scene),), "confidence": True, "stride": 32}
        map_scenes(MapOptions(output=output, block_rows=32, **options, **engine), progress=progress)
        return bytes_of(tmp_path / name)

    def kill(stage, done, total):
        if stage == STAGE and 0 < done < total and not killed:
            cluster.kill(cluster.workers[0])
            killed.append(done)

    local = mapped("local")
    (tmp_path / "cluster").mkdir()
    with Cluster(tmp_path / "cluster") as cluster:
        assert mapped("dask", kill, engine="dask", scheduler=cluster.address) == local
        assert killed
        # The worker that is left has the first model open.
        make_run(tmp_path / "run", "uint16", ("B04", "B03", "B02"), seed=2)
        again = mapped("dask-again", engine="dask", scheduler=cluster.address)
    assert again == mapped("local-again") != local
