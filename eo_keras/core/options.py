"""Options as fields of frozen dataclasses: default, help, range and choices are declared once, at the field.

    @documented
    @dataclasses.dataclass(frozen=True)
    class SplitOptions:
        \"\"\"How records are divided into splits.\"\"\"

        method: str = option("random", choices=METHODS, help="How the examples are divided.")
        test_fraction: float = option(0.2, minimum=0, below=1, help="Fraction of the examples for testing.")
        lists: str | None = option(None, path=True, help="Prefix of the published lists. Needs `method=lists`.")

        def __post_init__(self):
            check(self)
            if self.lists is not None and self.method != "lists":
                raise OptionError("lists", "it is given, but the method is not `lists`", ...)

`check` refuses values of another type or out of range, so that `__post_init__` keeps only what concerns several fields.
`launch.options` makes command-line flags of the same declarations and builds the dataclass from them.

Help is plain text; it names other options between backquotes, with or without a value, and ends with a full stop.
Ranges, choices and defaults are not repeated in it: they are added where it is shown.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eo_keras.errors import OptionError

_KEY = "eo_keras.option"


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of an option, kept in its field's metadata.

    Attributes:
        help: explanation for users.
        minimum: the smallest number allowed, or None.
        above: numbers must be larger than this, or None.
        maximum: the largest number allowed, or None.
        below: numbers must be smaller than this, or None.
        choices: the values allowed; empty for any.
        affects_result: whether it changes what is computed. One that does not may differ when work is resumed.
        repeatable: whether a file of flags that repeats the command holds it; folders to write and `overwrite` are not.
        path: whether it is a path; `~` stands for the home folder.
        urls: whether it is a path that may be the URL of another file system.
        commas: of several paths, whether a value may be several joined by commas.
        item: of several texts, the name of the flag that gives one of them each time it is given; empty for a flag of
            the option's name that gives all, joined by commas.
        aliases: its earlier names, still read from flags and run folders.
    """

    help: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    affects_result: bool = True
    repeatable: bool = True
    path: bool = False
    urls: bool = False
    commas: bool = False
    item: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """Text on the allowed values, such as `a number in [0, 1)`; empty for all."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        low = self.minimum if self.above is None else self.above
        high = self.maximum if self.below is None else self.below
        if low is not None and high is not None:
            first, last = "[" if self.above is None else "(", "]" if self.below is None else ")"
            return f"a number in {first}{low:g}, {high:g}{last}"
        if self.above is not None:
            return f"a number above {low:g}"
        if low is not None:
            return f"{low:g} or more"
        if high is not None:
            return f"a number below {high:g}" if self.maximum is None else f"{high:g} at most"
        return ""

    def allows(self, value: Any) -> bool:
        """Returns whether a value is one of the choices and within the range; NaN and infinity are in no range."""
        if self.choices:
            return value in self.choices
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return True
        return (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] = (),
    affects_result: bool = True,
    repeatable: bool = True,
    path: bool = False,
    urls: bool = False,
    commas: bool = False,
    item: str = "",
    aliases: Sequence[str] = (),
) -> Any:
    """Declares an option as a field of a dataclass.

    The field's annotation is its type: `bool`, `int`, `float`, `str`, one of these `| None`, or a tuple of them such as
    `tuple[float, ...]`. Of a tuple, range and choices are those of each item.

    Args:
        default: its default; without one the option is required.
        help: see `Option`, as all others.
        minimum: the smallest number allowed.
        above: numbers must be larger.
        maximum: the largest number allowed.
        below: numbers must be smaller.
        choices: the values allowed.
        affects_result: whether it changes what is computed.
        repeatable: whether a file of flags that repeats the command holds it.
        path: whether it is a path.
        urls: whether it is a path or a URL.
        commas: of several paths, whether a value may be several.
        item: of several texts, the flag of one of them.
        aliases: its earlier names.
    """
    declared = Option(
        help,
        minimum,
        above,
        maximum,
        below,
        tuple(choices),
        affects_result,
        repeatable,
        path or urls or commas,
        urls,
        commas,
        item,
        tuple(aliases),
    )
    return dataclasses.field(default=default, metadata={_KEY: declared})


def nested(kind: type, default: Any = dataclasses.MISSING) -> Any:
    """Declares a field that holds further options, whose names must differ from those of the outer ones.

    Args:
        kind: a frozen dataclass of options; its field's annotation is `kind` or `kind | None`.
        default: its default; `kind()` where nothing is given.
    """
    if default is dataclasses.MISSING:
        default = kind()
    return dataclasses.field(default=default, metadata={_KEY: kind})


@dataclasses.dataclass(frozen=True)
class Field:
    """One option of a dataclass.

    Attributes:
        name: its name.
        option: its declaration.
        kind: the type of a value, or of each item of a tuple: bool, int, float or str.
        several: whether it is a tuple.
        optional: whether it may be None.
        default: its default; `dataclasses.MISSING` where it is required.
    """

    name: str
    option: Option
    kind: type
    several: bool
    optional: bool
    default: Any

    @property
    def flag(self) -> str:
        """Name of its flag."""
        return self.option.item or self.name

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is dataclasses.MISSING

    def problem(self, value: Any) -> str:
        """Returns the expected values for a value that is not allowed; an empty text where it is allowed."""
        if value is None and self.optional:
            return ""
        items = value if self.several else (value,)
        if self.several and (isinstance(value, str) or not isinstance(value, Sequence)):
            return f"a sequence of {_NAMES[self.kind]}s"
        if not all(_is_of(self.kind, item) for item in items):
            text = _NAMES[self.kind]
        elif not all(self.option.allows(item) for item in items):
            text = self.option.expected or "a finite number"
        else:
            return ""
        return f"{text}, or none" if self.optional else text


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_KINDS = {bool: bool, int: numbers.Integral, float: numbers.Real}


def _is_of(kind: type, value: Any) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    # A path is as good as its text.
    return isinstance(value, _KINDS[kind]) if kind in _KINDS else isinstance(value, str) or hasattr(value, "__fspath__")


@functools.cache
def fields(kind: type) -> tuple[Field, ...]:
    """Returns the options of a dataclass, in the order of its arguments; those of `nested` fields are left out.

    Raises:
        TypeError: if a field's type is none that an option may have.
    """
    results, hints = [], typing.get_type_hints(kind)
    for field in _as_arguments(kind):
        declared = field.metadata.get(_KEY)
        if isinstance(declared, Option):
            results.append(Field(field.name, declared, *_kind(kind, field.name, hints[field.name]), field.default))
    return tuple(results)


def _as_arguments(kind: type) -> list[dataclasses.Field]:
    """Returns the fields of a dataclass; those that must be named, such as a base's, come last."""
    return sorted(dataclasses.fields(kind), key=lambda field: field.kw_only)


def _kind(owner: type, name: str, hint: Any) -> tuple[type, bool, bool]:
    """Returns a field's type, whether it is a tuple, and whether it may be None."""
    optional = several = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        optional, hint = len(parts) < len(typing.get_args(hint)), parts[0]
    if typing.get_origin(hint) is tuple:
        several, hint = True, typing.get_args(hint)[0]
    if hint not in _NAMES:
        raise TypeError(f"{owner.__name__}.{name}: {hint} is no type of an option")
    return hint, several, optional


def nested_fields(kind: type) -> dict[str, type]:
    """Returns the dataclasses of a dataclass's `nested` fields by the field's name."""
    declared = {field.name: field.metadata.get(_KEY) for field in dataclasses.fields(kind)}
    return {name: one for name, one in declared.items() if isinstance(one, type)}


def all_fields(kind: type) -> Iterator[Field]:
    """Yields the options of a dataclass and of all that it nests, each name once."""
    seen = set()
    for field in fields(kind):
        seen.add(field.name)
        yield field
    for inner in nested_fields(kind).values():
        for field in all_fields(inner):
            if field.name not in seen:
                seen.add(field.name)
                yield field


def check(options: Any) -> None:
    """Checks values against their fields' types, choices and ranges; NaN is in no range.

    Raises:
        OptionError: naming the first such option.
    """
    for field in fields(type(options)):
        value = getattr(options, field.name)
        if expected := field.problem(value):
            raise OptionError(field.name, _shown(value), expected)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value}'"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def documented(kind: type) -> type:
    """Adds a section "Attributes" from the fields' help to the docstring of a dataclass of options; a decorator."""
    lines = [(kind.__doc__ or "").rstrip(), "", "    Attributes:"]
    for field in _as_arguments(kind):
        declared = field.metadata.get(_KEY)
        if isinstance(declared, Option):
            lines.append(f"        {field.name}: {help_text(declared)}")
        elif isinstance(declared, type):
            lines.append(f"        {field.name}: see `{declared.__name__}`.")
    kind.__doc__ = "\n".join([*lines, "    "])
    return kind


def help_text(declared: Option) -> str:
    """Returns an option's help with the values that it allows."""
    expected = declared.expected
    return f"{declared.help} {expected[0].upper()}{expected[1:]}." if expected else declared.help


def result_names(kind: type) -> frozenset[str]:
    """Returns the names of the options that change the result, nested ones included."""
    return frozenset(field.name for field in all_fields(kind) if field.option.affects_result)


def aliases(kind: type) -> dict[str, str]:
    """Returns the names of options by their earlier names, nested ones included."""
    return {alias: field.name for field in all_fields(kind) for alias in field.option.aliases}


def with_present_names(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by the options' present names, given by present or earlier ones.

    Args:
        kind: the dataclass of options.
        values: values by name; those of nested dataclasses stand beside the outer ones or in objects of their own.
    """
    present = aliases(kind)

    def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            present.get(name, name): renamed(value) if isinstance(value, Mapping) else value
            for name, value in values.items()
        }

    return renamed(values)
