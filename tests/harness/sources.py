"""One check of what every source owes the build."""

import dataclasses

import pytest

from eo_keras.core.options import fields
from eo_keras.errors import SourceError
from tests.harness.building import bytes_of, interrupt_build, options_of
from tests.launch.commands import launch
from tfrecords_builder import build, sources


def check_source(dataset, archive, tmp_path, monkeypatch, damaged, *, keeps_state=False, beam=True, **own):
    """Checks that a source builds, resumes, and refuses.

    Args:
        dataset: its name.
        archive: where a whole one lies.
        tmp_path: a new folder.
        monkeypatch: pytest's.
        damaged: function that makes another one, in which an item is damaged, in a folder; it returns where it lies,
            and what its refusal names.
        keeps_state: whether an unfinished build is kept when an item is refused.
        beam: whether to build on Apache Beam too.
        own: options of the source and the split.
    """
    chosen = options_of(dataset, archive, tmp_path / "whole", **own)
    dry = build.build(chosen, dry_run=True)
    assert not (tmp_path / "whole").exists()
    report = build.build(chosen)
    expected = bytes_of(tmp_path / "whole")
    facts, card = sources.SOURCES[dataset].facts, report.card
    if not sources.SOURCES[dataset].cuts:
        assert dry.planned_shards == report.planned_shards
        assert [split.examples for split in dry.card.splits.values()] == [s.examples for s in card.splits.values()]
    assert (card.version, card.encoding) == (facts.version, facts.encoding) or dataset == "tfds"

    resumed = dataclasses.replace(chosen, output_dir=str(tmp_path / "resumed"))
    interrupt_build(monkeypatch, resumed, 2)
    assert build.build(resumed).kept_shards == 2 and bytes_of(tmp_path / "resumed") == expected

    build.build(dataclasses.replace(chosen, output_dir=str(tmp_path / "two"), num_workers=2))
    assert bytes_of(tmp_path / "two") == expected
    if beam:
        pytest.importorskip("apache_beam")
        _build_on_beam(dataset, archive, tmp_path / "beam", own)
        assert bytes_of(tmp_path / "beam") == expected

    (tmp_path / "damaged").mkdir()
    where, name = damaged(tmp_path / "damaged")
    with pytest.raises(SourceError) as refused:
        build.build(options_of(dataset, where, tmp_path / "refused", **own))
    assert name in str(refused.value) and "\n" not in str(refused.value)
    assert (tmp_path / "refused").exists() == keeps_state
    assert not (tmp_path / "refused" / "card.json").exists()


def _build_on_beam(dataset, archive, output_dir, own):
    # A process of its own: Beam's must not be forked off one in which TensorFlow runs.
    first = fields(sources.SOURCES[dataset].Options)[0].name
    given = {"dataset": dataset, first: archive, "output_dir": output_dir, "engine": "beam", "num_workers": 2} | own
    result = launch("build", **given)
    assert result.returncode == 0, result.stderr
