"""Where constitutions lie: a root folder with working files, frozen versions and their lock.

    <root>/<name>.yaml                        working file, edited freely
    <root>/published/<name>/<version>.yaml    frozen by `charter constitution publish`
    <root>/published/<name>/CHANGELOG.md      written from the lock
    <root>/lock.json                          digest, date and message of every published version

The root is the one given, else ./constitutions when that exists, else the library that ships with Charter.
A name that the root does not know is looked for in the shipped library, so that one's own can extend it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constitution.model import ConstitutionError, Problem
from constitution.versions import Version

SHIPPED = Path(__file__).parent / "library"


def default_root() -> Path:
    """./constitutions when it exists, else the shipped library."""
    own = Path("constitutions")
    return own if own.is_dir() else SHIPPED


@dataclass(frozen=True)
class Library:
    """One root folder."""

    root: Path

    @property
    def lock_path(self) -> Path:
        return self.root / "lock.json"

    def working_path(self, name: str) -> Path:
        return self.root / f"{name}.yaml"

    def published_dir(self, name: str) -> Path:
        return self.root / "published" / name

    def published_path(self, name: str, version: Version | str) -> Path:
        return self.published_dir(name) / f"{version}.yaml"

    def working_names(self) -> list[str]:
        return sorted(path.stem for path in self.root.glob("*.yaml"))

    def names(self) -> list[str]:
        """Every name with a working file or a published version."""
        return sorted(
            {*self.working_names(), *self.lock(), *(p.name for p in self.root.glob("published/*/"))}
        )

    def knows(self, name: str) -> bool:
        return self.working_path(name).is_file() or bool(self.versions(name))

    def versions(self, name: str) -> list[Version]:
        """Locked versions and published files of a name, oldest first."""
        found = {Version.parse(text) for text in self.lock().get(name, {})}
        for path in self.published_dir(name).glob("*.yaml"):
            try:
                found.add(Version.parse(path.stem))
            except ValueError as error:
                raise ConstitutionError(
                    Problem(str(path), None, f"a published file's name: {error}")
                ) from None
        return sorted(found)

    def lock(self) -> dict[str, dict[str, Any]]:
        """name → version → {"digest", "date", "message", "changes"}; ConstitutionError when damaged."""
        try:
            raw = self.lock_path.read_bytes()
        except FileNotFoundError:
            return {}
        file = str(self.lock_path)
        try:
            lock = json.loads(raw)
            for name, versions in lock.items():
                for version, entry in versions.items():
                    Version.parse(version)
                    for field in ("digest", "date", "message"):
                        if not isinstance(entry[field], str):
                            raise TypeError(f"{name}@{version}: {field} must be a text")
                    if not all(isinstance(change, str) for change in entry["changes"]):
                        raise TypeError(f"{name}@{version}: changes must be a list of texts")
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else None
            what = f"missing {error}" if isinstance(error, KeyError) else str(error)
            message = f"damaged lock ({what}); take it back with `git checkout -- {file}`"
            raise ConstitutionError(Problem(file, line, message)) from None
        return lock


def find_library(name: str, root: Path | None) -> Library:
    """The library that knows `name`: the root, else the shipped one. ConstitutionError names what exists."""
    first = Library(root if root is not None else default_root())
    if root is not None and not root.is_dir():
        raise ConstitutionError(Problem(str(root), None, "no such folder of constitutions"))
    for library in (first, Library(SHIPPED)):
        if library.knows(name):
            return library
    known = sorted({*first.names(), *Library(SHIPPED).names()})
    raise ConstitutionError(f"no constitution named '{name}'; known: {', '.join(known) or 'none'}")
