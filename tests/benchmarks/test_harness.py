"""Measurements side by side, and the inputs of the works: spread, ratio, commands, order, tables."""

import json
import os
import sys
import zipfile

import pytest

from benchmarks import harness, speed
from benchmarks.harness import FLOOR, OURS, PEER, Side, Work
from tfrecords_builder.sources import eurosat


def test_spread_and_ratio_by_hand():
    assert harness.spread([3.0, 1.0, 2.0, 10.0, 2.5]) == harness.Spread(2.5, 1.0, 10.0)
    # Round by round: 2, 10, 4. The ratio of the medians would be 5.
    found = harness.ratio([20.0, 50.0, 100.0], [10.0, 5.0, 25.0])
    assert found == harness.Spread(4.0, 2.0, 10.0)
    assert found.text(".1f") == "4.0 (2.0 to 10.0)"
    assert harness.Spread(12345.6, 1.0, 99999.0).text() == "12,346 (1 to 99,999)"
    with pytest.raises(ValueError):
        harness.ratio([1.0], [1.0, 2.0])


def test_missing_peers_are_reported_with_the_command_that_installs_them(tmp_path):
    with pytest.raises(harness.MeasurementError, match="make bench-peers"):
        harness.peers_python(str(tmp_path / "bin/python"))
    # A link stays a link: resolved, it would be another environment's interpreter.
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert harness.peers_python(str(link)) == str(link)


def test_a_failing_command_is_reported_with_its_last_line():
    code = "import sys; print('first', file=sys.stderr); sys.exit('what went wrong')"
    with pytest.raises(harness.MeasurementError, match=r"code 1 \(what went wrong\)"):
        harness.run_command([sys.executable, "-c", code])


def test_a_command_that_does_not_end_is_ended_and_reported():
    code = "import sys, time; print('so far', file=sys.stderr, flush=True); time.sleep(60)"
    with pytest.raises(harness.MeasurementError, match=r"not ended after 0.3 s \(so far\)"):
        harness.run_command([sys.executable, "-S", "-c", code], limit_seconds=0.3)


def test_figures_are_the_last_line_of_what_is_printed():
    assert harness.figures('a line\n{"examples": 3}\n') == {"examples": 3}
    for other in ("", "done\n", "3\n"):
        assert harness.figures(other) == {}


def test_own_paths_are_named_in_commands_that_are_kept():
    command = [sys.executable, "-m", "x", "--a=/its/dir/rgb", "--b=/its/dir", f"{harness.ROOT}/benchmarks/y.py"]
    shown = harness.shown(command, {"/its/": "W/", "/its/dir": "WORK_DIR"})
    assert shown == "python -m x --a=WORK_DIR/rgb --b=WORK_DIR benchmarks/y.py"


def test_the_machine_is_described():
    found = json.loads(json.dumps(harness.machine()))
    assert found["cores"] == os.cpu_count() and found["versions"].keys() == set(harness.PACKAGES)
    assert f"{found['cores']} cores" in harness.machine_text(found)


def _side(examples, seconds, log):
    code = f"open({str(log)!r}, 'a').write('{seconds} ');print('{{\"examples\": {examples}, \"seconds\": {seconds}}}')"
    return Side(f"in {seconds} s", (sys.executable, "-S", "-c", code))


def test_a_work_is_measured_in_turned_order_and_a_missed_target_shows(tmp_path, capsys):
    log = tmp_path / "log"
    sides = {OURS: _side(10, 2, log), PEER: _side(10, 4, log), FLOOR: _side(10, 1, log)}
    work = Work("the work", "images/s", "inside", sides, {OURS: 3})
    found = json.loads(json.dumps(harness.measure(work, 2, {})))
    assert log.read_text().split() == ["2", "4", "1", "1", "4", "2"]
    ours = found["sides"][OURS]
    assert ours["rates"] == [5, 5] and ours["ratio"] == {"median": 2, "low": 2, "high": 2} and ours["target"] == 3
    assert "ratio" not in found["sides"][PEER] and "ratio" not in found["sides"][FLOOR]
    _, _, row, peer, floor = harness.table({"work": found})
    assert row == "| the work; inside | **in 2 s** | 5 (5 to 5) images/s | 2.00 (2.00 to 2.00) | 3 (missed) |"
    assert peer == "|  | in 4 s | 2 (2 to 2) images/s |  |  |" and floor.startswith("|  | in 1 s |")
    assert "round 2: in 4 s: 2 images/s" in capsys.readouterr().out
    ours["target"] = 2
    assert harness.table({"work": found})[2].endswith("| 2 |")


def test_works_of_the_same_facts_stay_in_the_file_and_others_do_not(tmp_path):
    path, sides = tmp_path / "new" / "figures.json", {OURS: _side(10, 2, tmp_path / "log")}

    def record(name, size):
        work = Work(name, "images/s", "inside", sides, digits=1)
        return harness.record(str(path), iter([(name, work)]), 1, {"size": size}, {})

    record("a", 3)
    content = record("b", 3)
    assert content == json.loads(path.read_text()) and list(content["works"]) == ["a", "b"]
    assert content["size"] == 3 and content["runs"] == 1 and content["machine"] == harness.machine()
    assert "ratio" not in content["works"]["a"]["sides"][OURS]
    assert harness.table(content["works"])[2] == "| a; inside | **in 2 s** | 5.0 (5.0 to 5.0) images/s |  |  |"
    assert list(record("b", 4)["works"]) == ["b"]
    path.write_text(path.read_text().replace('"cores": ', '"cores": 9'))
    assert list(record("a", 4)["works"]) == ["a"]


def test_a_whole_command_is_timed_from_outside_and_its_examples_are_counted(tmp_path):
    code = "import time, json; time.sleep(0.05); print(json.dumps({'examples': 7, 'seconds': 0.001}))"
    side = Side("whole", (sys.executable, "-S", "-c", code), tmp_path / "output", 7)
    found = harness.run_side(side)
    assert found["examples"] == 7 and found["seconds"] > 0.05
    assert not (tmp_path / "output").exists()
    with pytest.raises(harness.MeasurementError, match="7 examples; expected 8"):
        harness.run_side(Side("whole", side.command, side.output, 8))
    assert harness.run_side(Side("whole", side.command, side.output, 8, leaves_out=True))["examples"] == 8
    with pytest.raises(harness.MeasurementError, match="7 examples; expected 6"):
        harness.run_side(Side("whole", side.command, side.output, 6, leaves_out=True))


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    assert speed.work_folder(tmp_path / "new") == speed.work_folder(tmp_path / "new")
    (tmp_path / "new/rgb").mkdir()
    speed.work_folder(tmp_path / "new")
    with pytest.raises(harness.MeasurementError, match="holds other files"):
        speed.work_folder(tmp_path)


def test_inputs_are_repeated_under_new_numbers_and_made_once(tmp_path):
    path = tmp_path / "EuroSAT_MS.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("EuroSAT_MS/Forest/Forest_7.tif", b"forest")
        archive.writestr("EuroSAT_MS/River/River_2500.tif", b"river")
    inputs = speed.unpack(eurosat.MULTISPECTRAL, str(path), tmp_path / "ms", at_least=5)
    assert inputs.count == 6
    found = {file.name: file.read_bytes() for file in inputs.classes.glob("*/*")}
    assert found.keys() == {f"Forest_{n}.tif" for n in (7, 10007, 20007)} | {
        f"River_{n}.tif" for n in (2500, 12500, 22500)
    }
    assert {data for name, data in found.items() if name.startswith("River")} == {b"river"}
    (inputs.classes / "Forest/Forest_7.tif").write_bytes(b"kept")
    speed.unpack(eurosat.MULTISPECTRAL, str(path), tmp_path / "ms", at_least=5)
    assert (inputs.classes / "Forest/Forest_7.tif").read_bytes() == b"kept"
    assert speed.unpack(eurosat.MULTISPECTRAL, str(path), tmp_path / "ms", at_least=1).count == 2
    assert len(list(inputs.classes.glob("*/*"))) == 2


def test_every_work_has_ours_a_peer_and_a_floor(tmp_path):
    inputs = speed.Inputs("EuroSAT.zip", tmp_path / "root", tmp_path / "root/classes", 12, 2)
    every = speed.make_works(inputs, inputs, tmp_path, "/peers/python")
    assert tuple(every) == speed.WORKS
    for work in every.values():
        assert {OURS, PEER, FLOOR} <= work.sides.keys() and work.targets.keys() <= work.sides.keys()
        script = work.sides[PEER].command[1]
        assert work.sides[PEER].command[0] == "/peers/python" and os.path.isfile(script)
        compile(open(script).read(), script, "exec")


def test_the_bytes_alone_are_read_by_whole_passes(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(bytes(10))
    found = harness.figures(harness.run_command(speed.own("read", source=tmp_path, examples=6, min_seconds=0.01))[0])
    assert found["examples"] % 6 == 0 and found["bytes"] == found["examples"] // 6 * 30 and found["seconds"] >= 0.01
