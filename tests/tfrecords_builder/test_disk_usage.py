import pytest

from eo_keras.errors import OptionError, SourceError
from tfrecords_builder import build, disk_usage
from tfrecords_builder.splits.split import SplitOptions
from tfrecords_builder.synthetic import archives


def test_the_expected_size_of_a_build_is_what_it_comes_to(tmp_path):
    for dataset, kind in (("eurosat_rgb", "rgb"), ("eurosat_ms", "ms")):
        source = archives.write_eurosat_archive(tmp_path / f"{kind}.zip", kind=kind, patches_per_class=2)
        room = disk_usage.expected(dataset, str(source))
        options = build.BuildOptions(dataset, str(source), str(tmp_path / dataset), SplitOptions(test_fraction=0.5))
        card = build.build(options).card
        written = sum(shard.bytes for split in card.splits.values() for shard in split.shards)
        assert room.patches == 20 and room.shard_bytes == pytest.approx(written, rel=1e-3)
        assert written < room.bytes < 1.03 * written
    with pytest.raises(SourceError, match="no such file"):
        disk_usage.expected("eurosat_rgb", str(tmp_path / "absent.zip"))
    with pytest.raises(OptionError, match="'psychic' is unknown"):
        disk_usage.expected("psychic", str(tmp_path))
