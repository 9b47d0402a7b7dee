"""Flags made from dataclasses of options, and their earlier names."""

import dataclasses

import pytest
from absl import flags

from eo_keras.core.options import check, nested, option
from eo_keras.errors import OptionError
from launch import app, flag_files, options


@dataclasses.dataclass(frozen=True)
class Change:
    turned: bool = option(True, help="Whether it is turned.", aliases=["d4"])
    shift: int = option(8, minimum=0, help="The largest shift. Needs `turned`.", aliases=["move", "moved"])

    def __post_init__(self):
        check(self)


@dataclasses.dataclass(frozen=True)
class Sharing:
    turned: bool = option(True, help="Whether it is turned.", aliases=["d4"])


@dataclasses.dataclass(frozen=True)
class Work:
    folder: str = option(path=True, repeatable=False, help="The folder.")
    rate: float = option(0.5, above=0, maximum=1, help="The rate.")
    limit: int | None = option(None, help="The limit. Default: as many as there are.")
    epochs: tuple[float, ...] = option((), help="Epochs.")
    sizes: tuple[int, ...] = option((32, 64), help="Sizes.")
    names: tuple[str, ...] = option((), help="Names.")
    more: tuple[str, ...] = option((), path=True, help="Further folders.")
    change: Change = nested(Change)
    other: Sharing = nested(Sharing)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passing:
    passed_on: tuple[str, ...] = option((), item="pass_on", help="Options of another program.")


@pytest.fixture
def values():
    values = flags.FlagValues()
    options.define(Work, values, module_name="launch.work")
    return values


def parse(values, *words):
    flag_files.parse(values, ["work", *words])
    return options.read(Work, values)


def test_defaults_are_those_of_the_fields(values):
    assert parse(values, "--folder=f") == Work("f")


def test_every_kind_of_value(values, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--folder=~/f", "--rate=0.25", "--limit=3", "--epochs=1,2.5", "--sizes=16", "--names=a,b", "--noturned"]
    read = parse(values, *words, "--more=a", "--more=b", "--shift=0")
    change = Change(turned=False, shift=0)
    assert read == Work(f"{tmp_path}/f", 0.25, 3, (1.0, 2.5), (16,), ("a", "b"), ("a", "b"), change, Sharing(False))
    text = app.flags_text(values)
    assert "--folder" not in text and "--epochs=1,2.5\n" in text and "--sizes=16\n" in text
    again = flags.FlagValues()
    options.define(Work, again, module_name="launch.work")
    (tmp_path / "flags").write_text(text)
    assert parse(again, f"--flagfile={tmp_path / 'flags'}", "--folder=~/f") == read


def test_the_help_has_range_and_flags_but_no_earlier_name(values):
    text = app._help("Works.", values, full=False)
    assert "--rate: The rate. A number in (0, 1]. (default: 0.5)" in text
    assert "--shift: The largest shift. Needs --turned. 0 or more. (default: 8)" in text
    assert "--folder: The folder. (required)" in text
    assert "--sizes: Sizes. (default: 32,64)" in text
    assert "--d4" not in text and "--move" not in text


def test_values_that_cannot_be_read_or_are_refused(values):
    with pytest.raises(flags.Error, match="--sizes=1,b: '1,b' is not whole numbers separated by commas"):
        parse(values, "--folder=f", "--sizes=1,b")
    with pytest.raises(OptionError, match="^shift: -1; expected 0 or more$"):
        parse(values, "--folder=f", "--sizes=1", "--shift=-1")


def test_earlier_names_are_read_with_one_warning(values, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(flag_files, "_warned", set())
    (tmp_path / "old.flags").write_text("--nod4\n--move = 4\n")
    read = parse(values, "--folder=f", f"--flagfile={tmp_path / 'old.flags'}")
    assert read.change == Change(turned=False, shift=4) and read.other == Sharing(False)
    warnings = capsys.readouterr().err.splitlines()
    assert warnings == [
        "warning: --d4 is now --turned; its old name will not be read much longer",
        "warning: --move is now --shift; its old name will not be read much longer",
    ]
    # A later word replaces a file's, by whatever name.
    assert parse(values, "--folder=f", f"--flagfile={tmp_path / 'old.flags'}", "--shift=2").change.shift == 2
    assert parse(values, "--folder=f", "--shift=1", f"--flagfile={tmp_path / 'old.flags'}").change.shift == 4
    assert parse(values, "--folder=f", "--d4").change.turned
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [("--move=1", "--shift=1"), ("--shift=1", "--move=1"), ("--move=1", "--moved=2")])
def test_both_names_at_one_place_are_refused(values, tmp_path, words):
    message = "expected --shift alone. Leave one out"
    with pytest.raises(OptionError, match=f"the command line gives it also as --.*{message}"):
        parse(values, "--folder=f", *words)
    (tmp_path / "both.flags").write_text("\n".join(words))
    with pytest.raises(OptionError, match=f"both.flags gives it also as --.*{message}"):
        parse(values, "--folder=f", f"--flagfile={tmp_path / 'both.flags'}")


def test_a_flag_that_gives_one_text_each_time():
    values = flags.FlagValues()
    options.define(Passing, values, module_name="launch.work")
    flag_files.parse(values, ["work"])
    assert options.read(Passing, values) == Passing()
    flag_files.parse(values, ["work", "--pass_on=--a=1,2", "--pass_on=--b"])
    assert options.read(Passing, values) == Passing(passed_on=("--a=1,2", "--b"))
    assert "passed_on" not in values


def test_an_option_of_two_dataclasses_must_be_declared_alike(values):
    @dataclasses.dataclass(frozen=True)
    class Otherwise:
        rate: float = option(0.1, help="Another rate.")

    with pytest.raises(ValueError, match="--rate is declared twice"):
        options.define(Otherwise, values)
