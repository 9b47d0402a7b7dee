"""The library names options as Python does: no flags in its texts, and between backquotes only options that exist."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
LIBRARY = ("eo_keras", "tfrecords_builder")
OTHERS = {"help", "model_config_file", "upgrade", "runner", "direct_running_mode", "direct_num_workers"}
"""Flags of other programs, and the one that all programs have."""

FLAG = re.compile(r"(?<![\w-])--([a-z]\w+)")
OPTION = re.compile(r"`([a-z][a-z_0-9]*)(?:=[^`]*)?`")
"""As `launch.options.with_flags` reads it."""


def trees(*packages):
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def text(node):
    """Returns a string, `?` for each value of an f-string; an empty text for what is none."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text(value) or "?" for value in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def name(function):
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def flags_in(tree):
    texts = [text(node) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [flag for one in texts for flag in FLAG.findall(one) if flag not in OTHERS]


def options_in(tree):
    """Returns the options that errors and help name."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [call for call in calls if name(call.func) == "option" or name(call.func).endswith("Error")]
    texts = [text(node) for call in calls for node in ast.walk(call)]
    return [option for one in texts for option in OPTION.findall(one)]


def declared():
    """Returns the names of the library's fields and of launch's flags."""
    names = set()
    for _, tree in trees(*LIBRARY, "launch"):
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
            elif isinstance(node, ast.Call) and name(node.func).lower().startswith("define") and node.args:
                names |= {text(argument) for argument in node.args[:2]}
    return names


def test_no_text_of_the_library_names_a_flag():
    assert flags_in(ast.parse('raise OptionError("a", f"{b}: give --crop=5")')) == ["crop"]
    assert {str(path): found for path, tree in trees(*LIBRARY) if (found := flags_in(tree))} == {}


def test_errors_and_help_name_options_that_exist():
    assert options_in(ast.parse('option(1, help="Needs `weights` and `loss=dice`.")')) == ["weights", "loss"]
    known = declared() | {"flagfile"}
    assert {"crop", "dihedral", "weights", "overwrite"} <= known
    unknown = {str(path): [one for one in options_in(tree) if one not in known] for path, tree in trees(*LIBRARY)}
    assert {path: names for path, names in unknown.items() if names} == {}
