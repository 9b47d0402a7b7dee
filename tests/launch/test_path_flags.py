import pathlib
import pwd
import re

import pytest
from absl import flags

from eo_keras.evaluation import report
from eo_keras.geo import images as rasters
from launch import path_flags
from tests.launch.commands import assert_one_line_error, launch

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    (folder / "runs" / "a").mkdir(parents=True)
    (folder / "runs" / "a" / "model_card.json").touch()
    (folder / "x.tif").touch()
    (tmp_path / "here" / "~").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_home_folders(home):
    other = pwd.getpwuid(0)
    for commas in (False, True):
        parse = path_flags.PathParser(commas=commas, urls=True).parse
        assert parse("~/recs") == f"{home}/recs" and parse("~") == str(home)
        assert parse(f"~{other.pw_name}/recs") == f"{other.pw_dir}/recs"
        for same in ("./~", "./~/recs", "a~b", "a/~/b", "s3://~/recs", "file:///~/recs", "imagenet", ""):
            assert parse(same) == same
        with pytest.raises(ValueError, match=r"no user 'nobody-here'.*\./~nobody-here/x"):
            parse("~nobody-here/x")
        pathlib.Path("~draft.tif").touch()
        assert parse("~draft.tif") == "~draft.tif"
    assert parse("~/a,~/b,c,./~") == f"{home}/a,{home}/b,c,./~"
    pathlib.Path("a,~").mkdir()
    assert parse("a,~") == "a,~"


def test_patterns_and_lists_reach_what_lies_at_home(home):
    values = flags.FlagValues()
    path_flags.define_multi_path("run_dir", None, "Runs.", commas=True, flag_values=values)
    path_flags.define_multi_path("images", None, "Images.", flag_values=values)
    values(["command", "--run_dir=~/runs/*,./~", "--run_dir=~/runs/a", "--images=~/*.tif"])
    assert report.find_runs(values.run_dir) == [home / "runs" / "a", pathlib.Path("~")]
    assert rasters.find_images(values.images) == [home / "x.tif"]
    assert values["run_dir"].serialize().splitlines()[1] == f"--run_dir={home}/runs/a"


def test_a_command_writes_to_the_home_folder(home):
    result = launch("download", dataset="eurosat_rgb", output_dir="~/data", dry_run=True)
    assert f"target:   {home}/data/" in result.stdout
    assert_one_line_error(
        launch("download", dataset="eurosat_rgb", output_dir="~nobody-here/x"), "there is no user 'nobody-here'"
    )


def test_every_flag_that_holds_a_path_is_one():
    """Every flag whose help names a folder or a file first: with flags.DEFINE_string, ~ would be a folder's name."""
    pattern = r'(define_(?:multi_)?path|DEFINE_(?:multi_)?string)\(\s*"(\w+)",\s*[^,]+,\s*f?"([^"]*)"'
    kinds = {
        (path.name, name): kind
        for package in ("launch", "benchmarks")
        for path in sorted((ROOT / package).glob("*.py"))
        for kind, name, text in re.findall(pattern, path.read_text())
        if re.search(r"(_dir|_source|^source|output|lists)$", name)
        or re.match(r"(\S+ )?(CSV |JSON |HTML )?([Ff]ile|[Ff]older|[Pp]ath|archive|PREFIX)\b", text)
    }
    assert len(kinds) > 40
    assert not {where: kind for where, kind in kinds.items() if kind.startswith("DEFINE")}


def test_a_url_where_a_local_path_is_needed_is_refused_and_keeps_its_slashes():
    parse = path_flags.PathParser(commas=True).parse
    assert parse("file:///a/b,c") == "/a/b,c"
    for url in ("s3://here/records", "a,memory://b"):
        with pytest.raises(ValueError, match="a URL, where a path on a disk of this machine is needed: copy it here"):
            parse(url)
        assert path_flags.PathParser(commas=True, urls=True).parse(url) == url
