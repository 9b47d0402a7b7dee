import pytest
from absl import flags

from launch import app, doctor
from tests.launch.commands import assert_one_line_error, launch


def test_the_whole_command(tmp_path):
    flagfile = tmp_path / "flags.txt"
    flagfile.write_text("--records_dir=records\n--model=resnet14\n--weights=imagenet\n--dtype_policy=mixed_float16\n")
    result = launch("doctor", f"--output_dir={tmp_path / 'new'}", "--dry_run", f"--check_flags={flagfile}")
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result
    # A machine may have problems of its own.
    assert "problem" in result.stderr and "the first of them: " in result.stderr
    lines = result.stdout.splitlines()
    for area in ("versions", "processor", "memory", "limits", "space", "oneDNN", "GPU", "bfloat16"):
        assert any(line.startswith(area) for line in lines), area
    flag_lines = [line for line in lines if line.startswith("flags")]
    assert any("problem" in line and "no ImageNet weights" in line for line in flag_lines)
    assert any("warning" in line and "mixed_float16 on a processor" in line for line in flag_lines)
    assert not any(line.startswith("disk") for line in lines) and "dry run: would write" in lines[-1]
    assert list(tmp_path.iterdir()) == [flagfile]


@pytest.fixture
def run(monkeypatch, capsys):
    """The command in this process, without TensorFlow."""
    monkeypatch.setattr(doctor, "_examine_tensorflow", lambda variables, given: [])

    def call(*arguments):
        values = flags.FlagValues()
        app.define_flags(values)
        doctor.define_flags(values)
        monkeypatch.setattr(doctor, "FLAGS", values)
        code = app.exit_code(doctor.main, ["launch.doctor", *map(str, arguments)], values)
        return code, *capsys.readouterr()

    return call


def test_room_for_a_build(run, tmp_path, monkeypatch):
    from tfrecords_builder.synthetic import archives

    source = archives.write_eurosat_archive(tmp_path / "ms.zip", kind="ms", patches_per_class=1)
    given = ("--dataset=eurosat_ms", f"--source={source}", f"--output_dir={tmp_path}")
    monkeypatch.setattr(doctor.doctor, "TEST_BYTES", 8 << 20)
    code, out, err = run(*given)
    assert (code, err) == (0, "") and "a build of 10 patches of eurosat_ms needs 0.00 GB" in out
    assert out.splitlines()[-1].startswith("nothing stands in the way; ")
    monkeypatch.setattr(
        doctor.disk_usage, "expected", lambda dataset, source: doctor.disk_usage.ExpectedSize(9, 1, 10**18)
    )
    code, out, err = run(*given, "--dry_run")
    assert code == 2 and "1 problem, the first of them: space, a build of 9 patches" in err and err.count("\n") == 1


def test_mistakes(run, tmp_path):
    assert run("--dataset=eurosat_rgb")[0] == 2
    code, out, err = run("--dataset=eurosat_rgb", f"--source={tmp_path / 'absent.zip'}")
    assert code == 2 and out == "" and "there is no such file" in err
    (tmp_path / "flags").write_text("--no_such_flag=1\n")
    assert_one_line_error(launch("doctor", f"--check_flags={tmp_path / 'flags'}"), "no_such_flag")


def test_a_tensorflow_that_cannot_be_imported_is_a_problem(monkeypatch):
    def fail():
        raise ImportError("libsomething.so: no such file")

    monkeypatch.setattr(app, "import_tensorflow_quietly", fail)
    (finding,) = doctor._examine_tensorflow({}, None)
    assert finding.level == doctor.doctor.PROBLEM and "libsomething.so" in finding.what
