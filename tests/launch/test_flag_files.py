import codecs
import json
import os
import threading

import pytest
from absl import flags

from eo_keras.errors import OptionError
from launch import flag_files, path_flags, sweep


@pytest.fixture
def values():
    """Flags of a made-up command."""
    values = flags.FlagValues()
    flags.DEFINE_string("model", None, "Some name.", flag_values=values)
    flags.DEFINE_integer("count", 3, "Some count.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("fast", False, "Whether to hurry.", flag_values=values)
    flags.DEFINE_enum("how", "well", ["well", "badly"], "How.", flag_values=values)
    flags.DEFINE_multi_string("vary", None, "NAME=V1,V2", flag_values=values)
    flags.DEFINE_list("scales", [], "Numbers.", flag_values=values)
    path_flags.define_path("records_dir", None, "A folder.", flag_values=values)
    return values


def read(values, path, *arguments):
    assert flag_files.parse(values, ["command", f"--flagfile={path}", *arguments]) == ["command"]
    return values


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


TEXT = "# Größe in Köln\n\n  // or so\n--model=Köln\n--count=7\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF8 * 2 + TEXT.encode(),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.replace("\n", "\r\n").encode(),
        codecs.BOM_UTF8 + TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        "# Größe, 20 €\n".encode("cp1252") + "--model=Köln\n--count=7".encode(),
        b"--count=7\n" + codecs.BOM_UTF8 + "# joined\xa0files\n--model=Köln".encode(),
    ],
)
def test_encodings_and_line_ends(values, tmp_path, content):
    read(values, written(tmp_path / "a.flags", content))
    assert (values.model, values.count) == ("Köln", 7)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--model resnet14", "model", "resnet14"),
        ("--model\tresnet14", "model", "resnet14"),
        ("--model = a b", "model", "a b"),
        ("-model=a=b", "model", "a=b"),
        ("--vary lr=1,2", "vary", ["lr=1,2"]),
        ("--fast", "fast", True),
        ("--fast true", "fast", True),
        ("--nofast", "fast", False),
        ("--scales=1,2", "scales", ["1", "2"]),
        ("--model=", "model", ""),
    ],
)
def test_forms_of_a_line(values, tmp_path, line, name, value):
    assert read(values, written(tmp_path / "a.flags", line))[name].value == value


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("--model=a\nmodel=resnet14", 2, ["'model=resnet14' is no flag", "Write --model=resnet14"]),
        ("–model=resnet14", 1, ["is no flag", "Write --model=resnet14"]),
        ("some words", 1, ["'some words' is no flag", "--name=value"]),
        ("\n--modle=x", 2, ["there is no flag --modle", "--model?"]),
        ("--records-dir=x", 1, ["--records_dir?"]),
        ("--model", 1, ["--model has no value"]),
        ("--count=many", 1, ["--count=many"]),
        ("--count=0", 1, ["--count=0", "positive"]),
        ("--how=so", 1, ["well|badly"]),
        ("--fast=maybe", 1, ["--fast=maybe"]),
        ("--records_dir=~nobody-of-this-name/x", 1, ["there is no user 'nobody-of-this-name'", "./~nobody"]),
        ("# fine\n--model=K\xf6ln".encode("latin-1"), 2, ["byte 0xf6, character 10, is not UTF-8"]),
        ("--model=a".encode("utf-16-le"), 1, ["byte 0x00", "UTF-8"]),
        ("--flagfile=", 1, ["no file is named"]),
        ("--flagfile=none", 1, ["there is no none"]),
    ],
)
def test_mistakes_are_told_by_file_and_line(values, tmp_path, content, line, words):
    path = written(tmp_path / "a.flags", content)
    with pytest.raises(OptionError) as raised:
        read(values, path)
    message = str(raised.value)
    assert message.startswith(f"{path}, line {line}: ") and all(word in message for word in words), message
    assert raised.value.args[0] == f"{path}, line {line}"


def test_the_command_line_and_the_file_in_their_order(values, tmp_path):
    path = written(tmp_path / "a.flags", "--count=7\n--model=file")
    assert flag_files.parse(values, ["c", "--count=5", "--flagfile", str(path), "--model=line", "stray"]) == [
        "c",
        "stray",
    ]
    assert (values.count, values.model) == (7, "line")
    with pytest.raises(OptionError, match="no file is named"):
        flag_files.parse(values, ["c", "--flagfile"])
    written(path, "--other=1\n--model=x")
    assert flag_files.parse(values, ["c", "--undefok=other", f"--flagfile={path}"]) == ["c"] and values.model == "x"


def test_files_within_files(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    written(tmp_path / "inner" / "b.flags", "--flagfile=c.flags\n--count=8")
    written(tmp_path / "inner" / "c.flags", "--model=beside")
    written(tmp_path / "c.flags", "--model=here")
    read(values, written(tmp_path / "a.flags", "--flagfile inner/b.flags"))
    assert (values.model, values.count) == ("beside", 8)
    (tmp_path / "inner" / "c.flags").unlink()
    assert read(values, "a.flags").model == "here"
    path = written(tmp_path / "c.flags", f"\n--flagfile={tmp_path}/./a.flags")
    with pytest.raises(OptionError, match=f"{path.name}, line 2: it leads back to .*a.flags"):
        read(values, "a.flags")


def test_a_file_that_is_missing_or_a_folder(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("none.flags", "launch/flagfiles/none.flags"):
        with pytest.raises(
            OptionError,
            match=f"--flagfile: there is no {name}; .*name of an installed one .demo.flags, .*Check the path",
        ):
            read(values, name)
    with pytest.raises(OptionError, match="there is no demoo; .*Did you mean demo.flags?"):
        read(values, "demoo")
    with pytest.raises(OptionError, match="there is no other/demo.flags"):
        read(values, "other/demo.flags")
    (tmp_path / "run").mkdir()
    with pytest.raises(OptionError, match="run is a folder.*Name a file in it"):
        read(values, "run")
    written(tmp_path / "run" / "flags.txt", "")
    with pytest.raises(OptionError, match="Say --flagfile=run/flags.txt"):
        read(values, "run")


@pytest.mark.parametrize("name", ["demo", "demo.flags", "launch/flagfiles/demo.flags"])
def test_installed_files_are_found_anywhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert sweep.training_flags(name, "records").model == "resnet14"
    written(tmp_path / "demo", "--model=compact")
    assert sweep.training_flags(name, "records").model == ("compact" if name == "demo" else "resnet14")


def test_a_base_is_read_alike(tmp_path):
    path = written(tmp_path / "base.flags", codecs.BOM_UTF8 + b"\n--modle=x")
    with pytest.raises(OptionError, match="base.flags, line 2: there is no flag --modle. Did you mean --model"):
        sweep.training_flags(str(path), "records")
    with pytest.raises(OptionError, match="^--base: there is no "):
        sweep.training_flags(str(tmp_path / "none"), "records")


def test_a_pipe_may_be_read(values, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("--count=9",))
    writer.start()
    assert read(values, pipe).count == 9
    writer.join()


def test_a_home_folder_in_a_file(values, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    written(tmp_path / "home" / "a.flags", "--flagfile=~/b.flags\n--model=~/x")
    written(tmp_path / "home" / "b.flags", "--records_dir=~/records")
    read(values, "~/a.flags")
    assert (values.records_dir, values.model) == (str(tmp_path / "home" / "records"), "~/x")


def test_paths_of_a_run_start_where_it_was_begun(values, tmp_path, monkeypatch):
    began, here, run = tmp_path / "began", tmp_path / "here", tmp_path / "run"
    for folder in (began / "records", here, run):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    written(run / "flags.txt", "--records_dir=records\n--model=records")
    assert read(values, run / "flags.txt").records_dir == "records"
    written(run / "environment.json", json.dumps({"working_directory": str(began)}))
    read(values, run / "flags.txt")
    assert (values.records_dir, values.model) == (str(began / "records"), "records")
    (here / "records").mkdir()
    assert read(values, run / "flags.txt").records_dir == "records"
    assert read(values, run / "flags.txt", "--records_dir=other").records_dir == "other"
