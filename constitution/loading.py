"""From a reference to a checked Constitution: find the file, check it, resolve `extends`, verify the lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from constitution.digest import one_line, tidy_block
from constitution.draw import drawable
from constitution.library import Library, default_root, find_library
from constitution.model import (
    ComparisonExemplar,
    ComparisonPrinciple,
    Constitution,
    ConstitutionError,
    CritiqueExemplar,
    CritiquePrinciple,
    Problem,
)
from constitution.schema import schema_problems
from constitution.source import Source, parse_source, read_source
from constitution.structure import NOTHING_TO_DRAW, entries, structure_problems
from constitution.versions import Range, Version

P = TypeVar("P", CritiquePrinciple, ComparisonPrinciple)

_TEXTS: dict[type, tuple[str, ...]] = {
    CritiquePrinciple: ("critique_request", "revision_request"),
    ComparisonPrinciple: ("question",),
}


def load(ref: str | Path, *, root: Path | None = None) -> Constitution:
    """Load `name` (the working file), `name@1.2.0`, `name@^1.2` (the newest 1.x from 1.2 on), or a path.

    A text is a path when it contains a slash or ends in .yaml or .yml. `root` is the folder of constitutions;
    see `constitution.library` for the default. Raises ConstitutionError with every problem that makes it
    unusable; a published file that differs from its lock is one.
    """
    if isinstance(ref, Path) or "/" in ref or "\\" in ref or ref.endswith((".yaml", ".yml")):
        return load_path(Path(ref), root=root)
    name, at, wanted = ref.partition("@")
    library = find_library(name, root)
    if at:
        try:
            version = Range.parse(wanted).best(library.versions(name))
        except ValueError as error:
            raise ConstitutionError(f"{ref}: {error}") from None
        if version is None:
            known = ", ".join(map(str, library.versions(name))) or "none"
            raise ConstitutionError(
                f"{ref}: no such version; published: {known}; "
                f'to publish: `charter constitution publish {name} --bump minor -m "…"`'
            )
        return load_published(library, name, version)
    path = library.working_path(name)
    if not path.is_file():
        raise ConstitutionError(
            f"{name} has no working file {path}; name a published version, such as "
            f"{name}@{library.versions(name)[-1]}"
        )
    return load_source(read_source(path), root=library.root, name=name)


def load_path(path: Path, *, root: Path | None = None) -> Constitution:
    """Load a file. One that lies at `published/<name>/<version>.yaml` is verified as a published version."""
    folder = path.absolute().parent
    if folder.parent.name == "published":
        library = Library(root if root is not None else folder.parent.parent)
        try:
            version = Version.parse(path.stem)
        except ValueError as error:
            raise ConstitutionError(Problem(str(path), None, f"a published file's name: {error}")) from None
        return load_published(library, folder.name, version)
    return load_source(read_source(path), root=root_of(path, root))


def root_of(path: Path, root: Path | None) -> Path:
    """Where the file at `path` looks for what it extends: `root`, its own library, or the default one."""
    if root is not None:
        return root
    folder = path.absolute().parent
    if folder.parent.name == "published":
        return folder.parent.parent
    return path.parent if (path.parent / "lock.json").exists() else default_root()


def load_published(
    library: Library, name: str, version: Version, *, chain: tuple[str, ...] = ()
) -> Constitution:
    """Load a published version and hold it against its lock. `chain` are the references that led here."""
    path = library.published_path(name, version)
    if not path.is_file():
        message = (
            f"{name}@{version} is in {library.lock_path.name} but its file is gone; "
            f"take it back: `git checkout -- {path}`"
        )
        raise ConstitutionError(Problem(str(path), None, message))
    source = read_source(path)
    c = load_source(source, root=library.root, name=name, chain=chain)
    if source.data.get("version") != str(version):
        message = f"version: must be {version} as in the file's name; take it back: `git checkout -- {path}`"
        raise ConstitutionError(source.problem(("version",), message))
    entry = library.lock().get(name, {}).get(str(version))
    if entry is None:
        message = (
            f"{name}@{version} has no entry in {library.lock_path}; take the lock back with git, "
            f"or, if this file is right: `charter constitution publish {name} --relock {version}`"
        )
        raise ConstitutionError(Problem(str(path), None, message))
    if entry["digest"] != c.digest:
        message = (
            f"{name}@{version} was changed after it was published "
            f"(digest {c.digest[:8]}, locked {entry['digest'][:8]}); take it back: `git checkout -- {path}`, "
            f"make the edit in {library.working_path(name)}, then "
            f'`charter constitution publish {name} --bump minor -m "…"`'
        )
        raise ConstitutionError(Problem(str(path), None, message))
    return replace(c, version=str(version), published=True)


def loads(text: str | bytes, *, file: str = "<text>", root: Path | None = None) -> Constitution:
    """Load a constitution from text, as a working file."""
    raw = text.encode() if isinstance(text, str) else text
    return load_source(parse_source(raw, file=file), root=root if root is not None else default_root())


def require_published(c: Constitution) -> Constitution:
    """`c` itself when it is a published version, else a ConstitutionError that names the command to run.

    A run that trains calls this unless its user allowed working files.
    """
    if not c.published:
        raise ConstitutionError(
            f"{c.ref} is not a published version, and a training run needs one: "
            f'`charter constitution publish {c.name} --bump minor -m "…"`, then name {c.name}@<version>'
        )
    return c


def load_source(
    source: Source, *, root: Path, name: str | None = None, chain: tuple[str, ...] = ()
) -> Constitution:
    """Check a parsed file and build it. `name` is what the file must call itself, when its place says so."""
    problems, c = examine(source, root=root, name=name, chain=chain)
    if c is None:
        raise ConstitutionError(problems)
    return c


def examine(
    source: Source, *, root: Path, name: str | None = None, chain: tuple[str, ...] = ()
) -> tuple[list[Problem], Constitution | None]:
    """Every error of a parsed file, and the constitution when there is none."""
    problems = schema_problems(source) + structure_problems(source)
    data = source.data if isinstance(source.data, dict) else {}
    if name is not None and isinstance(data.get("name"), str) and data["name"] != name:
        problems.append(source.problem(("name",), f"name: must be '{name}', as its file is called"))
    base = None
    # A malformed `extends` has its schema message already; a base with missing parts is reported here.
    if isinstance(data.get("extends"), str) and not any(
        p.line == source.line(("extends",)) for p in problems
    ):
        try:
            base = _load_base(data["extends"], root, chain)
        except ConstitutionError as error:
            problems.append(source.problem(("extends",), f"extends: {error}"))
    if base is not None:
        problems += _incomplete_additions(source, base)
    if problems:
        return sorted(set(problems), key=lambda p: (p.line or 0, p.message)), None
    c = _build(source, base)
    # Without a base this was seen in the raw data.
    if c.critique and not drawable(c.critique):
        problems.append(source.problem(("critique", "principles"), NOTHING_TO_DRAW.format("critique")))
    if c.comparison and not drawable(c.comparison):
        problems.append(source.problem(("comparison", "principles"), NOTHING_TO_DRAW.format("comparison")))
    return problems, None if problems else c


def _load_base(ref: str, root: Path, chain: tuple[str, ...]) -> Constitution:
    if ref in chain:
        raise ConstitutionError(f"a cycle: {' → '.join([*chain[chain.index(ref) :], ref])}")
    name, _, version = ref.partition("@")
    library = find_library(name, root)
    parsed = Version.parse(version)
    if parsed not in library.versions(name):
        known = ", ".join(map(str, library.versions(name))) or "none"
        raise ConstitutionError(f"{ref} is not published; published: {known}")
    return load_published(library, name, parsed, chain=(*chain, ref))


def _incomplete_additions(source: Source, base: Constitution) -> list[Problem]:
    problems = []
    halves: tuple[tuple[str, tuple[Any, ...], type], ...] = (
        ("critique", base.critique, CritiquePrinciple),
        ("comparison", base.comparison, ComparisonPrinciple),
    )
    for half, inherited, cls in halves:
        known = {p.id for p in inherited}
        for path, entry in entries(source, half, "principles"):
            missing = [field for field in (*_TEXTS[cls], "dimension") if field not in entry]
            if isinstance(entry.get("id"), str) and entry["id"] not in known and missing:
                lacks = f"as a new principle it lacks {', '.join(missing)}"
                message = f"'{entry['id']}' is not in {base.ref}, and {lacks}"
                problems.append(source.problem(path, message))
    return problems


def _build(source: Source, base: Constitution | None) -> Constitution:
    data = source.data
    critique, comparison = data.get("critique", {}), data.get("comparison", {})
    return Constitution(
        name=data["name"],
        description=one_line(data.get("description", "")),
        metadata={key: tidy_block(text) for key, text in data.get("metadata", {}).items()},
        critique=_principles(CritiquePrinciple, base.critique if base else (), critique),
        comparison=_principles(ComparisonPrinciple, base.comparison if base else (), comparison),
        critique_exemplars=(
            tuple(CritiqueExemplar(**_exemplar(entry)) for entry in critique["exemplars"])
            if "exemplars" in critique
            else (base.critique_exemplars if base else ())
        ),
        comparison_exemplars=(
            tuple(ComparisonExemplar(**_exemplar(entry)) for entry in comparison["exemplars"])
            if "exemplars" in comparison
            else (base.comparison_exemplars if base else ())
        ),
    )


def _principles(cls: type[P], inherited: tuple[P, ...], section: dict[str, Any]) -> tuple[P, ...]:
    """The base's principles with this file's changes, then what this file adds."""
    merged = {principle.id: principle for principle in inherited}
    for entry in section.get("principles", []):
        fields: dict[str, Any] = {
            key: one_line(value) if isinstance(value, str) else value for key, value in entry.items()
        }
        if "weight" in fields:
            fields["weight"] = float(fields["weight"])
        old = merged.get(entry["id"])
        merged[entry["id"]] = replace(old, **fields) if old is not None else cls(**fields)
    return tuple(merged.values())


def _exemplar(entry: dict[str, Any]) -> dict[str, Any]:
    fields = {key: tidy_block(value) for key, value in entry.items() if key != "conversation"}
    for key in ("critique_request", "revision_request", "question"):
        if key in fields:
            fields[key] = one_line(fields[key])
    turns = tuple(
        {"role": turn["role"], "content": tidy_block(turn["content"])} for turn in entry["conversation"]
    )
    return {**fields, "conversation": turns}
