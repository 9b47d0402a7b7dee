"""Exceptions for the user, each with place, cause, expectation and remedy.

Every message has one form: where the problem is, what was found there, what was expected and what to do. Options are
named as in Python: the place of an `OptionError` is the option, and texts write options between backquotes, with or
without a value. `launch` turns them into flags, prints the message in one line and ends with exit code 2.
"""


class EOKerasError(Exception):
    """Base class of errors in the input or the options.

    Args:
        where: the file, folder, option or record that is concerned.
        found: the cause.
        expected: the expected input.
        remedy: an instruction for the user.
    """

    def __init__(self, where, found: str, expected: str = "", remedy: str = ""):
        message = f"{where}: {found}"
        if expected:
            message += f"; expected {expected}"
        if remedy:
            message += f". {remedy[0].upper()}{remedy[1:]}"
        # Arguments of Exception must be those of __init__, or the error cannot cross a process pool.
        super().__init__(str(where), found, expected, remedy)
        self.message = " ".join(message.split())

    def __str__(self) -> str:
        return self.message


class OptionError(EOKerasError):
    """An option, or a combination of options, that cannot work."""


class SourceError(EOKerasError):
    """A source archive, folder or image that cannot be used."""


class RecordsError(EOKerasError):
    """A records folder that is missing, incomplete, damaged or in use."""


class RunError(EOKerasError):
    """A run folder that is missing, incomplete or in use."""


class BandError(EOKerasError):
    """Bands that do not exist, are not held by the data, or do not fit the model."""


class LegendError(EOKerasError):
    """Classes of data and model that do not agree."""


class StorageError(EOKerasError):
    """Output that could not be written, for instance because the disk is full."""


class TrainingError(EOKerasError):
    """A training run that cannot continue, for instance because the loss is not finite."""
