"""Options declared at the fields of dataclasses."""

import dataclasses
import math
import pathlib

import pytest

from eo_keras.core import options
from eo_keras.core.options import nested, option
from eo_keras.errors import OptionError


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = option(0.1, above=0, help="The rate.", aliases=["pace"])
    decay: float = option(0.5, minimum=0, below=1, help="The decay.", affects_result=False)

    def __post_init__(self):
        options.check(self)


@options.documented
@dataclasses.dataclass(frozen=True)
class Outer:
    """Some options."""

    folder: str = option(path=True, repeatable=False, affects_result=False, help="The folder.")
    kind: str = option("a", choices=("a", "b"), help="The kind.")
    count: int | None = option(None, minimum=1, help="The count.")
    sizes: tuple[int, ...] = option((), minimum=32, maximum=64, help="The sizes.")
    fast: bool = option(False, help="Whether it is fast.", aliases=["quick"])
    inner: Inner | None = nested(Inner)

    def __post_init__(self):
        options.check(self)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "c"}, "kind: 'c'; expected one of a, b"),
        ({"count": 0}, "count: 0; expected 1 or more, or none"),
        ({"count": 1.5}, "count: 1.5; expected a whole number, or none"),
        ({"count": True}, "count: True; expected a whole number, or none"),
        ({"sizes": (32, 16)}, r"sizes: 32, 16; expected a number in \[32, 64\]"),
        ({"sizes": "32"}, "sizes: '32'; expected a sequence of a whole numbers"),
        ({"fast": 1}, "fast: 1; expected true or false"),
        ({"folder": None}, "folder: None; expected a text"),
    ],
)
def test_values_are_refused_by_their_field(changes, message):
    with pytest.raises(OptionError, match=f"^{message}$"):
        Outer(**({"folder": "f"} | changes))


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "1", None])
def test_numbers_out_of_range_are_refused_and_so_is_what_is_no_number(value):
    with pytest.raises(OptionError, match="^rate: .*expected a number"):
        Inner(rate=value)


def test_values_in_range_are_taken():
    assert Inner(rate=1, decay=0).rate == 1
    taken = Outer(pathlib.Path("f"), kind="b", count=None, sizes=(32, 64), inner=None)
    assert taken.sizes == (32, 64) and taken.inner is None


def test_fields_with_what_was_declared():
    found = {field.name: field for field in options.all_fields(Outer)}
    assert list(found) == ["folder", "kind", "count", "sizes", "fast", "rate", "decay"]
    assert found["folder"].required and not found["kind"].required
    assert (found["count"].kind, found["count"].optional, found["sizes"].several) == (int, True, True)
    assert options.result_names(Outer) == {"kind", "count", "sizes", "fast", "rate"}
    old = {"pace": 1, "quick": True, "kind": "a"}
    assert options.with_present_names(Outer, old) == {"rate": 1, "fast": True, "kind": "a"}
    assert options.with_present_names(Outer, {"inner": {"pace": 2}}) == {"inner": {"rate": 2}}


def test_a_base_gives_its_options_after_those_of_the_class():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Base:
        number: int = option(1, help="The number.")

    @options.documented
    @dataclasses.dataclass(frozen=True)
    class Further(Base):
        """Further options."""

        folder: str = option(help="The folder.")

    assert [field.name for field in options.fields(Further)] == ["folder", "number"]
    assert Further.__doc__.index("folder: The folder.") < Further.__doc__.index("number: The number.")
    assert Further("f") == Further(number=1, folder="f")


def test_the_docstring_tells_every_option():
    text = Outer.__doc__
    assert text.startswith("Some options.\n\n    Attributes:\n        folder: The folder.\n")
    assert "        sizes: The sizes. A number in [32, 64].\n" in text and "        inner: see `Inner`.\n" in text


def test_a_type_that_no_option_has_is_a_fault_of_the_program():
    @dataclasses.dataclass(frozen=True)
    class Bad:
        values: dict = option(None, help="Values.")

    with pytest.raises(TypeError, match="Bad.values"):
        options.fields(Bad)
