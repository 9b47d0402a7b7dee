import io

import pytest
from PIL import Image

from tests.launch.commands import assert_one_line_error, launch


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twenty patches in a folder of class folders."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("Forest", "River"):
        (folder / name).mkdir()
        for n in range(10):
            buffer = io.BytesIO()
            Image.new("RGB", (64, 64), (10 * n, 90, 40 if name == "Forest" else 200)).save(buffer, "JPEG")
            (folder / name / f"{name}_{n}.jpg").write_bytes(buffer.getvalue())
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bogus=1"], "Unknown command line flag 'bogus'"),
        (["stray"], "stray argument 'stray'"),
        (["--seed=x"], "--seed"),
        (["--split=lists"], "--lists"),
        (["--split=psychic"], "--split"),
        (["--fold=two"], "such as 2/5"),
        (["--fold=6/5"], "such as 1/5 to 5/5"),
        (["--fold=2/5", "--test_fraction=0.2"], "one of the two"),
        (["--band_order=B11,B08,B03"], "--band_order: it does not apply to --dataset=eurosat_rgb"),
        (["--tile_size=64"], "--tile_size: it does not apply to --dataset=eurosat_rgb"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(source, tmp_path, arguments, words):
    required = ["--dataset=eurosat_rgb", f"--source={source}", f"--output_dir={tmp_path / 'r'}"]
    assert_one_line_error(launch("build", *required, *arguments), words)
    assert not (tmp_path / "r").exists()


def test_a_missing_required_flag(tmp_path):
    assert_one_line_error(launch("build", "--dataset=eurosat_rgb"), "--output_dir")


@pytest.mark.parametrize(
    "command", ["build", "inspect", "download", "train", "sweep", "evaluate", "predict", "export", "demo"]
)
def test_help_explains_every_flag(command):
    result = launch(command, "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert f"python -m launch.{command}" in result.stdout
    assert "--dry_run" in result.stdout and "default:" in result.stdout


def test_build_then_inspect(source, tmp_path):
    flagfile = tmp_path / "build.flags"
    lines = [
        "--dataset=eurosat_rgb",
        f"--source={source}",
        f"--output_dir={tmp_path / 'r'}",
        "--num_workers=1",
        "--fold=2/5",
    ]
    flagfile.write_text("\n".join(lines))
    dry = launch("build", f"--flagfile={flagfile}", "--dry_run")
    assert dry.returncode == 0 and "nothing was written" in dry.stdout and not (tmp_path / "r").exists()
    result = launch("build", f"--flagfile={flagfile}")
    assert result.returncode == 0 and result.stderr == "", result
    assert "20 examples" in result.stdout and "fold: 2\n" in result.stdout
    assert_one_line_error(launch("build", f"--flagfile={flagfile}"), "holds another build")
    page = tmp_path / "page.html"
    shown = launch("inspect", f"--records_dir={tmp_path / 'r'}", f"--output={page}", "--samples=4")
    assert shown.returncode == 0, shown
    assert "eurosat_rgb" in shown.stdout and "B04" in shown.stdout
    assert "data:image/png;base64," in page.read_text()
    shard = next((tmp_path / "r").glob("*.tfrecord-00000-of-00008"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert_one_line_error(launch("inspect", f"--records_dir={tmp_path / 'r'}"), shard.name)
    assert_one_line_error(launch("inspect", f"--records_dir={tmp_path}"), "holds no card.json")


def test_download_says_what_it_would_do(tmp_path):
    result = launch("download", "--dataset=eurosat_ms", f"--output_dir={tmp_path}", "--dry_run")
    assert result.returncode == 0 and "091174add3c8e680a49244acf185b9f0" in result.stdout
    assert list(tmp_path.iterdir()) == []
