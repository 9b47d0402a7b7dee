import json
import os
import sys
import zipfile

import pytest

from benchmarks import comparison, measuring, results, works
from benchmarks.comparison import FLOOR, OURS, PEER, Side, Work
from eo_keras.core import files
from eo_keras.records import tfrecord
from tfrecords_builder.sources import eurosat


def test_spread_and_ratio_by_hand():
    assert measuring.spread([3.0, 1.0, 2.0, 10.0, 2.5]) == measuring.Spread(2.5, 1.0, 10.0)
    # Round by round: 2, 10, 4. The ratio of the medians would be 5.
    found = measuring.ratio([20.0, 50.0, 100.0], [10.0, 5.0, 25.0])
    assert found == measuring.Spread(4.0, 2.0, 10.0)
    assert found.text(".1f") == "4.0 (2.0 to 10.0)"
    assert measuring.Spread(12345.6, 1.0, 99999.0).text() == "12,346 (1 to 99,999)"
    with pytest.raises(ValueError):
        measuring.ratio([1.0], [1.0, 2.0])


def test_missing_peers_are_told_with_the_command_that_installs_them(tmp_path):
    with pytest.raises(measuring.MeasurementError, match="make bench-peers"):
        measuring.peers_python(str(tmp_path / "bin/python"))
    # A link stays a link: resolved, it would be another environment's interpreter.
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert measuring.peers_python(str(link)) == str(link)


def test_a_failing_command_is_told_with_its_last_line():
    code = "import sys; print('first', file=sys.stderr); sys.exit('what went wrong')"
    with pytest.raises(measuring.MeasurementError, match=r"code 1 \(what went wrong\)"):
        measuring.run_command([sys.executable, "-c", code])


def test_a_command_that_does_not_end_is_ended_and_told():
    code = "import sys, time; print('so far', file=sys.stderr, flush=True); time.sleep(60)"
    with pytest.raises(measuring.MeasurementError, match=r"not ended after 0.3 s \(so far\)"):
        measuring.run_command([sys.executable, "-S", "-c", code], limit_seconds=0.3)


def test_figures_are_the_last_line_of_what_is_printed():
    assert measuring.figures('a line\n{"examples": 3}\n') == {"examples": 3}
    for other in ("", "done\n", "3\n"):
        assert measuring.figures(other) == {}


def test_own_paths_are_named_in_commands_that_are_kept():
    command = [sys.executable, "-m", "x", "--a=/its/dir/rgb", "--b=/its/dir", f"{measuring.ROOT}/benchmarks/y.py"]
    shown = measuring.shown(command, {"/its/": "W/", "/its/dir": "WORK_DIR"})
    assert shown == "python -m x --a=WORK_DIR/rgb --b=WORK_DIR benchmarks/y.py"


def test_the_machine_is_described():
    found = json.loads(json.dumps(measuring.machine()))
    assert found["cores"] == os.cpu_count() and found["versions"].keys() == set(measuring.PACKAGES)
    assert f"{found['cores']} cores" in measuring.machine_text(found)


def _side(examples, seconds, log):
    code = f"open({str(log)!r}, 'a').write('{seconds} ');print('{{\"examples\": {examples}, \"seconds\": {seconds}}}')"
    return Side(f"in {seconds} s", (sys.executable, "-S", "-c", code))


def test_a_work_is_measured_in_turned_order_and_a_missed_target_shows(tmp_path, capsys):
    log = tmp_path / "log"
    sides = {OURS: _side(10, 2, log), PEER: _side(10, 4, log), FLOOR: _side(10, 1, log)}
    work = Work("the work", "images/s", "inside", sides, {OURS: 3})
    found = json.loads(json.dumps(comparison.measure(work, 2, {})))
    assert log.read_text().split() == ["2", "4", "1", "1", "4", "2"]
    ours = found["sides"][OURS]
    assert ours["rates"] == [5, 5] and ours["ratio"] == {"median": 2, "low": 2, "high": 2} and ours["target"] == 3
    assert "ratio" not in found["sides"][PEER] and "ratio" not in found["sides"][FLOOR]
    _, _, row, peer, floor = comparison.table({"work": found})
    assert row == "| the work; inside | **in 2 s** | 5 (5 to 5) images/s | 2.00 (2.00 to 2.00) | 3 (missed) |"
    assert peer == "|  | in 4 s | 2 (2 to 2) images/s |  |  |" and floor.startswith("|  | in 1 s |")
    assert "round 2: in 4 s: 2 images/s" in capsys.readouterr().out
    ours["target"] = 2
    assert comparison.table({"work": found})[2].endswith("| 2 |")


def test_a_whole_command_is_timed_from_outside_and_its_examples_are_counted(tmp_path):
    code = "import time, json; time.sleep(0.05); print(json.dumps({'examples': 7, 'seconds': 0.001}))"
    side = Side("whole", (sys.executable, "-S", "-c", code), tmp_path / "output", 7)
    found = comparison.run_side(side)
    assert found["examples"] == 7 and found["seconds"] > 0.05
    assert not (tmp_path / "output").exists()
    with pytest.raises(measuring.MeasurementError, match="7 examples; expected 8"):
        comparison.run_side(Side("whole", side.command, side.output, 8))


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    assert works.work_folder(tmp_path / "new") == works.work_folder(tmp_path / "new")
    (tmp_path / "new/rgb").mkdir()
    works.work_folder(tmp_path / "new")
    with pytest.raises(measuring.MeasurementError, match="holds other files"):
        works.work_folder(tmp_path)


def test_inputs_are_repeated_under_new_numbers_and_made_once(tmp_path):
    path = tmp_path / "EuroSAT_MS.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("EuroSAT_MS/Forest/Forest_7.tif", b"forest")
        archive.writestr("EuroSAT_MS/River/River_2500.tif", b"river")
    inputs = works.unpack(eurosat.MULTISPECTRAL, str(path), tmp_path / "ms", at_least=5)
    assert inputs.count == 6
    found = {file.name: file.read_bytes() for file in inputs.classes.glob("*/*")}
    assert found.keys() == {f"Forest_{n}.tif" for n in (7, 10007, 20007)} | {
        f"River_{n}.tif" for n in (2500, 12500, 22500)
    }
    assert {data for name, data in found.items() if name.startswith("River")} == {b"river"}
    (inputs.classes / "Forest/Forest_7.tif").write_bytes(b"kept")
    works.unpack(eurosat.MULTISPECTRAL, str(path), tmp_path / "ms", at_least=5)
    assert (inputs.classes / "Forest/Forest_7.tif").read_bytes() == b"kept"
    assert works.unpack(eurosat.MULTISPECTRAL, str(path), tmp_path / "ms", at_least=1).count == 2
    assert len(list(inputs.classes.glob("*/*"))) == 2


def test_every_work_has_ours_a_peer_and_a_floor(tmp_path):
    inputs = works.Inputs("EuroSAT.zip", tmp_path / "root", tmp_path / "root/classes", 12, 2)
    every = works.make_works(inputs, inputs, tmp_path, "/peers/python")
    assert tuple(every) == works.WORKS
    for work in every.values():
        assert {OURS, PEER, FLOOR} <= work.sides.keys() and work.targets.keys() <= work.sides.keys()
        script = work.sides[PEER].command[1]
        assert work.sides[PEER].command[0] == "/peers/python" and os.path.isfile(script)
        compile(open(script).read(), script, "exec")


def test_the_page_tells_the_speed_and_what_a_profile_said(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "published.json").write_text("[]")
    assert "## Speed" not in results.page(folder)
    run = {"examples": 10, "seconds": 2, "versions": {"torchgeo": "0.8.1"}, "import_seconds": 0.25}
    side = {"title": "a", "rates": [5.0], "median": 5.0, "low": 5.0, "high": 5.0, "runs": [run]}
    ratio = {"median": 0.5, "low": 0.4, "high": 0.6}
    same = {"same_bytes": False, "same_examples": True}
    sides = {OURS: side | {"ratio": ratio, "target": 1} | same, PEER: side | same}
    measured = {
        "runs": 1,
        "cache": "warm",
        "sources": {
            "rgb": {"name": "EuroSAT_RGB.zip", "files": 27000, "copies": 1},
            "ms": {"name": "part.zip", "files": 10, "copies": 3},
        },
        "machine": measuring.machine(),
        "works": {"ms_build": {"title": "the work", "unit": "images/s", "timed": "inside", "sides": sides}},
    }
    files.write_json(folder / "speed.json", measured)
    files.write_json(folder / "tfrecord_writers.json", measured)
    files.write_json(folder / "speed_notes.json", {"ms_build": "most of the time goes into reading."})
    text = results.page(folder)
    assert "0.50 (0.40 to 0.60) | 1 (missed) |" in text and "torchgeo 0.8.1" in text
    assert "holds the same examples as ours, in 0 of 1 cases in the same bytes." in text
    assert "* the work: most of the time goes into reading." in text
    assert "`part.zip` (10 GeoTIFFs, repeated 3 times" in text and ": a 0.25 s." in text
    for name in ("speed", "tfrecord_writers"):
        assert f"python -m benchmarks.{name} --rgb_source=data/EuroSAT_RGB.zip --ms_source=data/part.zip " in text


def test_the_bytes_alone_are_read_by_whole_passes(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(bytes(10))
    found = measuring.figures(
        measuring.run_command(works.own("read", source=tmp_path, examples=6, min_seconds=0.01))[0]
    )
    assert found["examples"] % 6 == 0 and found["bytes"] == found["examples"] // 6 * 30 and found["seconds"] >= 0.01


def test_our_writer_writes_again_what_it_read(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        for number in range(3):
            tfrecord.write_record(file, tfrecord.encode_example({"image": bytes(9), "label": number, "key": b"k"}))
    command = works.module("benchmarks.own_writers", writer="eo_keras", input=tmp_path / "a", output=tmp_path / "b")
    assert measuring.figures(measuring.run_command(command)[0])["examples"] == 3
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
