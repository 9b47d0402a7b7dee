"""Manifests of output folders: files with sizes and SHA-256, folders inside, and folders of unfinished files."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

from eo_keras.core import files

_ABOUT = "What EO-Keras wrote into this folder. It removes and replaces nothing else."
_SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Written:
    """Entry of a file as it was written.

    Attributes:
        bytes: its size; None of a file that is announced before it is written, or grows. Nothing had its name then.
        sha256: its SHA-256; None likewise.
    """

    bytes: int | None = None
    sha256: str | None = None

    @classmethod
    def of_bytes(cls, data: bytes) -> Written:
        """Returns the entry of a file with these bytes."""
        return cls(len(data), files.sha256_of_bytes(data))

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> Written:
        """Returns the entry of an existing file."""
        return cls(files.size(path), files.sha256_of_file(path))


@dataclasses.dataclass
class Manifest:
    """The manifest of one folder.

    Attributes:
        kind: kind of the folder, such as `run`.
        files: by path, how each file was written; two entries while one is being replaced.
        folders: paths of output folders inside, with manifests of their own.
        scratch: paths of folders all of whose content is unfinished.
    """

    kind: str
    files: dict[str, list[Written]] = dataclasses.field(default_factory=dict)
    folders: list[str] = dataclasses.field(default_factory=list)
    scratch: list[str] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Returns the manifest as the text of its file; the same content gives the same bytes."""
        value = {
            "about": _ABOUT,
            "schema": _SCHEMA,
            "kind": self.kind,
            "files": {name: [dataclasses.asdict(one) for one in self.files[name]] for name in sorted(self.files)},
        }
        # Empty ones are left out.
        return value | {name: sorted(set(names)) for name in ("folders", "scratch") if (names := getattr(self, name))}

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Reads a manifest's file.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: if it is another file, or lists what is not in the folder.
        """
        value = json.loads(data)
        if value["about"] != _ABOUT or value["schema"] != _SCHEMA:
            raise ValueError("another file")
        listed = {name: [Written(**one) for one in entries] for name, entries in value["files"].items()}
        manifest = cls(str(value["kind"]), listed, list(value.get("folders", ())), list(value.get("scratch", ())))
        for name in (*manifest.files, *manifest.folders, *manifest.scratch):
            # A folder may be of any origin: the files that its manifest lists must lie in it.
            parts = pathlib.PurePosixPath(name).parts
            if not parts or parts[0] == "/" or ".." in parts or name != "/".join(parts):
                raise ValueError(f"{name!r} is no path inside the folder")
        return manifest
