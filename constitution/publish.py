"""Freezing a version: the file's text as it is, plus its version, then the lock, then the changelog.

The lock entry is what makes a version published. An interrupted publish leaves at most an unlocked file,
which the next publish of the same text completes; the changelog is written from the lock and cannot
disagree with it.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path

from common import files
from constitution.diff import summarize
from constitution.library import Library, default_root
from constitution.loading import load_published, load_source
from constitution.model import Constitution, ConstitutionError, Problem
from constitution.source import Source, parse_source, read_source
from constitution.versions import Version

_FIRST = {"major": Version(1, 0, 0), "minor": Version(0, 1, 0), "patch": Version(0, 0, 1)}


def publish(
    name: str,
    *,
    message: str,
    bump: str | None = None,
    version: str | None = None,
    root: Path | None = None,
    today: datetime.date | None = None,
) -> Constitution:
    """Freeze the working file of `name` as the next version (`bump`: major, minor, patch) or as `version`.

    Raises ConstitutionError when the file has errors, nothing changed since the last version, the version
    is taken or older than the last one, or the last version does not agree with its lock.
    """
    library = Library(root if root is not None else default_root())
    path = library.working_path(name)
    if not path.is_file():
        known = ", ".join(library.working_names()) or "none"
        raise ConstitutionError(f"{library.root} has no working file {name}.yaml to publish; there: {known}")
    if not message.strip():
        raise ConstitutionError('a published version needs a message: -m "what changed and why"')
    source = read_source(path)
    working = load_source(source, root=library.root, name=name)
    locked = sorted(map(Version.parse, library.lock().get(name, {})))
    latest = load_published(library, name, locked[-1]) if locked else None
    target = _target(name, locked, bump, version)
    if latest is not None and latest.digest == working.digest:
        raise ConstitutionError(f"nothing to publish: {path} says the same as {latest.ref}")
    frozen = library.published_path(name, target)
    if frozen.is_file():
        _refuse_other(frozen, library, name, target, working)
    write_atomically(frozen, _with_version(source, target))
    entry = {
        "digest": working.digest,
        "date": (today or datetime.date.today()).isoformat(),
        "message": " ".join(message.split()),
        "changes": summarize(latest, working) if latest is not None else [],
    }
    _lock(library, name, target, entry)
    return load_published(library, name, target)


def relock(
    name: str, version: str, *, root: Path | None = None, today: datetime.date | None = None
) -> Constitution:
    """Give a published file whose lock entry was lost a new one. Raises ConstitutionError when it has one."""
    library = Library(root if root is not None else default_root())
    try:
        parsed = Version.parse(version)
    except ValueError as error:
        raise ConstitutionError(str(error)) from None
    if version in library.lock().get(name, {}):
        raise ConstitutionError(f"{name}@{version} has a lock entry; only a lost one can be made again")
    path = library.published_path(name, parsed)
    source = read_source(path)
    c = load_source(source, root=library.root, name=name)
    if source.data.get("version") != version:
        raise ConstitutionError(
            source.problem(("version",), f"version: must be {version}, as in the file's name")
        )
    entry = {
        "digest": c.digest,
        "date": (today or datetime.date.today()).isoformat(),
        "message": "lock entry made again from the file",
        "changes": [],
    }
    _lock(library, name, parsed, entry)
    return load_published(library, name, parsed)


def changelog(library: Library, name: str) -> str:
    """The changelog of a name as Markdown, newest version first."""
    parts = [f"# Changelog of {name}\n\nWritten by `charter constitution publish`.\n"]
    entries = library.lock().get(name, {})
    for version in sorted(entries, key=Version.parse, reverse=True):
        entry = entries[version]
        changes = "".join(f"- {change}\n" for change in entry["changes"])
        parts.append(
            f"## {version} ({entry['date']})\n\n{entry['message']}\n\n{changes}- digest `{entry['digest']}`\n"
        )
    return "\n".join(parts)


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing. Raises ConstitutionError when the folder cannot be written."""
    try:
        files.write_atomically(path, text)
    except OSError as error:
        raise ConstitutionError(Problem(str(path), None, f"cannot write: {error.strerror}")) from None


def _target(name: str, locked: list[Version], bump: str | None, version: str | None) -> Version:
    if (bump is None) == (version is None):
        raise ConstitutionError("say either --bump major|minor|patch or --version X.Y.Z")
    if bump is not None:
        if bump not in _FIRST:
            raise ConstitutionError(f"--bump must be major, minor or patch, not '{bump}'")
        return locked[-1].bump(bump) if locked else _FIRST[bump]
    try:
        target = Version.parse(version or "")
    except ValueError as error:
        raise ConstitutionError(str(error)) from None
    if locked and target <= locked[-1]:
        what = "is published already" if target in locked else f"is older than {name}@{locked[-1]}"
        raise ConstitutionError(
            f"{name}@{target} {what}, and a version is never reused; "
            f'`charter constitution publish {name} --bump patch -m "…"` makes {locked[-1].bump("patch")}'
        )
    return target


def _refuse_other(frozen: Path, library: Library, name: str, target: Version, working: Constitution) -> None:
    """An unlocked file at the target is an interrupted publish if it says the same, else somebody's work."""
    if load_source(read_source(frozen), root=library.root, name=name).digest == working.digest:
        return
    raise ConstitutionError(
        Problem(
            str(frozen),
            None,
            f"exists without a lock entry and differs from the working file; if it is right, "
            f"`charter constitution publish {name} --relock {target}`; if not, delete it",
        )
    )


def _with_version(source: Source, version: Version) -> str:
    """The file's own text, comments and all, with `version` after `name`."""
    # The frozen copy lies two folders deeper than the working file.
    lines = re.sub(r"\A(# yaml-language-server: \$schema=)(?=\.)", r"\1../../", source.text).split("\n")
    old = source.lines.get(("version",))
    if old is not None:
        lines[old - 1] = re.sub(r"version\s*:.*", f"version: {version}", lines[old - 1])
    else:
        lines.insert(source.line(("name",)), f"version: {version}")
    text = "\n".join(lines).rstrip("\n") + "\n"
    try:
        frozen = parse_source(text.encode(), file=source.file).data
    except ConstitutionError:
        frozen = None
    if frozen != {**source.data, "version": str(version)}:
        message = "name: put it on a line of its own, so that publish can add the version below it"
        raise ConstitutionError(source.problem(("name",), message))
    return text


def _lock(library: Library, name: str, version: Version, entry: Mapping[str, object]) -> None:
    lock = library.lock()
    entries = {**lock.get(name, {}), str(version): dict(entry)}
    lock[name] = dict(sorted(entries.items(), key=lambda item: Version.parse(item[0])))
    write_atomically(
        library.lock_path, json.dumps(dict(sorted(lock.items())), indent=2, ensure_ascii=False) + "\n"
    )
    write_atomically(library.published_dir(name) / "CHANGELOG.md", changelog(library, name))
