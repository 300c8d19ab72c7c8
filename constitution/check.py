"""Everything that is wrong with a file or with a whole library, errors and lint findings together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from constitution.library import Library, default_root, find_library
from constitution.lint import lint
from constitution.loading import examine, load_path, load_published, root_of
from constitution.model import Constitution, ConstitutionError, Problem
from constitution.source import read_source
from constitution.versions import Version


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What was found in one file. `errors` keep it from loading, `warnings` do not."""

    file: str
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    constitution: Constitution | None = None

    @property
    def ok(self) -> bool:
        return not self.errors and not self.warnings


def check(target: str | Path, *, root: Path | None = None) -> CheckReport:
    """Check a path, `name` or `name@version`. A file that cannot be read is a report with an error."""
    text = str(target)
    if isinstance(target, Path) or "/" in text or "\\" in text or text.endswith((".yaml", ".yml")):
        return check_file(Path(target), root=root)
    name, _, version = text.partition("@")
    try:
        library = find_library(name, root)
        path = library.published_path(name, Version.parse(version)) if version else library.working_path(name)
    except ConstitutionError as error:
        return CheckReport(file=text, errors=error.problems)
    except ValueError as error:
        return CheckReport(file=text, errors=[Problem(text, None, str(error))])
    return check_file(path, root=library.root)


def check_file(path: Path, *, root: Path | None = None) -> CheckReport:
    """Every problem of one file. A published file is held against its lock, not linted: it cannot change."""
    try:
        if path.absolute().parent.parent.name == "published":
            return CheckReport(file=str(path), constitution=load_path(path, root=root))
        source = read_source(path)
    except ConstitutionError as error:
        return CheckReport(file=str(path), errors=error.problems)
    base = root_of(path, root)
    name = path.stem if path.absolute().parent == base.absolute() else None
    errors, c = examine(source, root=base, name=name)
    return CheckReport(file=str(path), errors=errors, warnings=lint(source, c), constitution=c)


def check_library(root: Path | None = None) -> list[CheckReport]:
    """Every working file and every published version of a root, and that lock and files agree."""
    library = Library(root if root is not None else default_root())
    if not library.root.is_dir():
        return [
            CheckReport(file=str(root), errors=[Problem(str(root), None, "no such folder of constitutions")])
        ]
    reports = [check_file(library.working_path(name), root=library.root) for name in library.working_names()]
    try:
        for name in library.names():
            reports += _published(library, name, library.versions(name))
    except ConstitutionError as error:
        reports.append(CheckReport(file=error.problems[0].file, errors=error.problems))
    return reports


def _published(library: Library, name: str, versions: Iterable[Version]) -> list[CheckReport]:
    reports = []
    for version in versions:
        file = str(library.published_path(name, version))
        try:
            reports.append(CheckReport(file=file, constitution=load_published(library, name, version)))
        except ConstitutionError as error:
            reports.append(CheckReport(file=file, errors=error.problems))
    return reports
