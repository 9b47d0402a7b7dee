"""Command-line flags made from dataclasses of options, see `eo_keras.core.options`.

A command defines the flags of its options, and reads the options from them:

    def define_flags(flag_values):
        options.define(EvaluationOptions, flag_values)

    def main():
        chosen = options.read(EvaluationOptions, FLAGS)

A flag has the name, the default and the help of its field, and the range or the choices after the help. Ranges are
checked by the dataclass alone, so that a Python caller and the command line meet the same refusal. Several dataclasses
may share an option: it must then be declared alike, and becomes one flag.

Flags of a command that belong to no dataclass are defined by absl; `not_repeated` marks those that say where or how the
command runs and not what it computes.

Earlier names of an option (`aliases`) are read but not shown, see `launch.flag_files`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from absl import flags

from eo_keras.core.options import Field, all_fields, fields, help_text, nested_fields
from launch import command_names, path_flags

flags.disclaim_key_flags()  # The flags belong to the module that calls.

_OPTION = re.compile(r"`([a-z][a-z_0-9]*(?:=[^`]*)?)`")
"""Pattern of an option in the library's messages, with or without a value."""


_DEFINERS = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}


def with_flags(text: str) -> str:
    """Returns a message with options written as flags.

    Options of the library, such as `` `crop=65` ``, become flags, `--crop=65`; commands are named as the running one
    was called, see `command_names.as_typed`.
    """
    return command_names.as_typed(_OPTION.sub(r"--\1", text))


def define(kind: type, flag_values: flags.FlagValues, *, module_name: str | None = None) -> None:
    """Defines a flag for each option of a dataclass and of those that it nests.

    Args:
        kind: the dataclass.
        flag_values: the flags.
        module_name: the module that the flags belong to, for their order in the help; None for the calling one.

    Raises:
        ValueError: if a flag of that name exists that was not declared alike.
    """
    for field in all_fields(kind):
        if field.flag in flag_values:
            before = getattr(flag_values[field.flag], "declared", None)
            if before != field:
                raise ValueError(f"--{field.flag} is declared twice, and not alike")
            continue
        where: dict[str, Any] = {"flag_values": flag_values, "required": field.required}
        _define(field, where | ({} if module_name is None else {"module_name": module_name}))
        flag = flag_values[field.flag]
        flag.declared, flag.aliases = field, field.option.aliases
        if not field.option.repeatable:
            not_repeated(flag_values, field.flag)


def _define(field: Field, where: dict[str, Any]) -> None:
    name, text = field.flag, with_flags(help_text(field.option))
    default = None if field.required else field.default
    if field.several:
        default = list(default or ())
    if field.option.path:
        _define_path(field, default, text, where)
    elif field.several and field.kind is not str:
        serializer = _NumbersSerializer()
        flags.DEFINE(_NumbersParser(field.kind), name, _joined(default), text, serializer=serializer, **where)
    elif field.option.item:
        flags.DEFINE_multi_string(name, default, text, **where)
    elif field.several:
        flags.DEFINE_list(name, default, text, **where)
    else:
        _DEFINERS[field.kind](name, default, text, **where)


def _define_path(field: Field, default: Any, text: str, where: dict[str, Any]) -> None:
    if field.several:
        path_flags.define_multi_path(field.name, default or None, text, commas=field.option.commas, **where)
    else:
        path_flags.define_path(field.name, default, text, urls=field.option.urls, **where)


def not_repeated(flag_values: flags.FlagValues, *names: str) -> None:
    """Marks flags that do not change the result of a command and are left out of its flag file."""
    for name in names:
        flag_values[name].repeatable = False


def is_repeated(flag: flags.Flag) -> bool:
    """Tells whether a flag belongs into the flag file that repeats the command."""
    return getattr(flag, "repeatable", True)


def aliases(flag_values: flags.FlagValues) -> dict[str, str]:
    """Returns the names of flags by their earlier names."""
    return {alias: name for name in flag_values for alias in getattr(flag_values[name], "aliases", ())}


def read(kind: type, flag_values: flags.FlagValues, **given: Any) -> Any:
    """Builds a dataclass of options from flags.

    Args:
        kind: the dataclass.
        flag_values: the flags, parsed.
        given: values of fields that are taken instead of flags'.

    Raises:
        OptionError: if the dataclass refuses the values.
    """
    values = {field.name: _value(field, flag_values[field.flag].value) for field in fields(kind)}
    values |= {name: read(inner, flag_values) for name, inner in nested_fields(kind).items() if name not in given}
    return kind(**(values | given))


def _value(field: Field, value: Any) -> Any:
    return tuple(value or ()) if field.several else value


def _joined(values: Sequence[Any] | None) -> str | None:
    return None if values is None else ",".join(map(_number, values))


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)


class _NumbersParser(flags.BaseListParser):
    """Parser of numbers separated by commas.

    Args:
        kind: int or float.
    """

    def __init__(self, kind: type):
        super().__init__(",", "comma separated list")
        self._kind = kind

    def parse(self, argument: str | Sequence[Any]) -> list[Any]:
        """Returns the numbers.

        Raises:
            ValueError: if one is none.
        """
        try:
            return [self._kind(item) for item in super().parse(argument)]
        except ValueError:
            raise ValueError(f"'{argument}' is not {self.flag_type()}") from None

    def flag_type(self) -> str:
        """Returns the name of such values in messages."""
        return f"{'whole ' if self._kind is int else ''}numbers separated by commas"


class _NumbersSerializer(flags.ArgumentSerializer):
    """Serializer of numbers for `_NumbersParser`."""

    def serialize(self, value: Sequence[Any]) -> str:
        """Returns the text."""
        return _joined(value) or ""
