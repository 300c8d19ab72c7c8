"""Reading a YAML file that a person, or an enemy, wrote: plain data plus the line of every value.

A constitution needs mappings, lists, texts, numbers and true/false (YAML 1.2 core). Anchors, aliases, tags
and several documents are refused by name: they only help texts to hide, and aliases make small files explode.
Parsing walks events without recursion, so neither depth nor size can hurt.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from constitution.model import ConstitutionError, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 16

# libyaml's parser is some ten times faster; the pure one accepts the same files.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A parsed file: plain JSON-like data, and where it stands.

    `lines` maps a path such as ("critique", "principles", 0) to the line (from 1) of its key or list item.
    """

    file: str
    text: str
    data: Any
    lines: dict[FieldPath, int]

    def line(self, path: FieldPath) -> int:
        """The line of `path`, or of the nearest thing around it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def problem(self, path: FieldPath, message: str) -> Problem:
        return Problem(self.file, self.line(path), message)


def read_source(path: Path) -> Source:
    """Read and parse one file. Raises ConstitutionError with the file and the line."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConstitutionError(Problem(str(path), None, f"cannot read: {error.strerror}")) from None
    return parse_source(raw, file=str(path))


def parse_source(raw: bytes, *, file: str) -> Source:
    """Parse the bytes of a file; `file` is its name in messages. Raises ConstitutionError."""
    if len(raw) > MAX_BYTES:
        raise ConstitutionError(Problem(file, 1, f"larger than {MAX_BYTES:,} bytes: not a constitution"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start]
        raise ConstitutionError(
            Problem(file, line, f"not UTF-8: byte 0x{byte:02x}; save it as UTF-8")
        ) from None
    return _Parser(text, file).parse()


@dataclass
class _Open:
    """A collection under construction; `key` is the mapping key that waits for its value."""

    path: FieldPath
    value: dict[str, Any] | list[Any]
    key: str | None = None


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[FieldPath, int] = {(): 1}
        self.problems: list[Problem] = []
        self.open_flows: list[int | None] = []

    def parse(self) -> Source:
        root: list[Any] = []
        stack: list[_Open] = [_Open((), root)]
        documents = 0
        for event in self.events():
            line = self.line_at(event.start_mark)
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.error(
                        line, "a second YAML document starts here; a file holds one constitution"
                    )
            elif isinstance(event, yaml.AliasEvent):
                raise self.extra(line, f"alias *{event.anchor}", "aliases")
            elif isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
                self.open_flows.pop()
            elif isinstance(event, yaml.NodeEvent):
                self.refuse_node_extras(event, line)
                self.add(event, line, stack)
        if self.problems:
            raise ConstitutionError(self.problems)
        if not root or root[0] is None:
            raise self.error(1, "the file is empty")
        return Source(file=self.file, text=self.text, data=root[0], lines=self.lines)

    def add(self, event: Any, line: int, stack: list[_Open]) -> None:
        """Put one scalar, or one collection that opens here, into the innermost open collection."""
        top = stack[-1]
        is_scalar = isinstance(event, yaml.ScalarEvent)
        if isinstance(top.value, dict) and top.key is None:
            if not is_scalar:
                raise self.error(line, "a key must be a plain word, not a list or a mapping")
            if event.value in top.value:
                first = self.lines[(*top.path, event.value)]
                self.problems.append(
                    Problem(self.file, line, f"'{event.value}' is given twice (first on line {first})")
                )
            else:
                self.lines[(*top.path, event.value)] = line
            top.key = event.value
            return
        if isinstance(top.value, dict):
            path: FieldPath = (*top.path, top.key or "")
        else:
            path = (*top.path, len(top.value)) if len(stack) > 1 else ()
            self.lines.setdefault(path, line)
        value: Any = _scalar(event) if is_scalar else {} if isinstance(event, yaml.MappingStartEvent) else []
        if isinstance(top.value, dict):
            top.value[top.key or ""] = value
            top.key = None
        else:
            top.value.append(value)
        if not is_scalar:
            if len(stack) > MAX_DEPTH:
                raise self.error(line, f"nested deeper than {MAX_DEPTH} levels")
            stack.append(_Open(path, value))
            self.open_flows.append(line if event.flow_style else None)

    def events(self) -> Iterator[Any]:
        bad = yaml.reader.Reader.NON_PRINTABLE.search(self.text)
        if bad:
            line = bisect_left(self.newlines, bad.start()) + 1
            raise self.error(line, f"control character U+{ord(bad.group()):04X} is not allowed")
        try:
            yield from yaml.parse(self.text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            raise self.yaml_error(error) from None

    def refuse_node_extras(self, event: Any, line: int) -> None:
        if event.anchor is not None:
            raise self.extra(line, f"anchor &{event.anchor}", "anchors")
        if event.tag is not None:
            raise self.extra(line, f"tag {event.tag}", "tags")

    def extra(self, line: int, what: str, plural: str) -> ConstitutionError:
        advice = "write the text out, or put it in quotes if it starts with *, & or !"
        return self.error(line, f"{what}: {plural} are not allowed; {advice}")

    def line_at(self, mark: Any) -> int:
        # By offset, because YAML also counts U+0085 and U+2028 as line ends and editors do not.
        return bisect_left(self.newlines, mark.index) + 1

    def error(self, line: int, message: str) -> ConstitutionError:
        return ConstitutionError([*self.problems, Problem(self.file, line, message)])

    def yaml_error(self, error: yaml.MarkedYAMLError) -> ConstitutionError:
        line = self.line_at(error.problem_mark)
        context, problem = error.context or "", error.problem or "not valid YAML"
        if "quoted scalar" in context and error.context_mark is not None and "end of stream" in problem:
            return self.error(
                self.line_at(error.context_mark), "YAML: the quote that opens here is never closed"
            )
        index = error.problem_mark.index if error.problem_mark else 0
        character = self.text[index : index + 1]
        if "tab character" in problem or ("cannot start any token" in problem and character == "\t"):
            return self.error(line, "YAML: a tab; indent with spaces")
        if "scanning an alias" in context or "scanning an anchor" in context:
            character = "*" if "alias" in context else "&"
            return self.error(line, f"YAML: a text cannot start with {character!r}; put it in quotes")
        if "cannot start any token" in problem:
            return self.error(line, f"YAML: a text cannot start with {character!r}; put it in quotes")
        if "mapping values are not allowed" in problem:
            problem = (
                "a second ': ' on one line, or wrong indentation; put a text that contains ': ' in quotes"
            )
        flow = next((line for line in self.open_flows if line is not None), None)
        if flow is not None:
            problem += f", inside the [ or {{ that opens on line {flow}"
        elif error.context_mark is not None and self.line_at(error.context_mark) != line:
            problem += f", in what starts on line {self.line_at(error.context_mark)}"
        return self.error(line, f"YAML: {problem}")


_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {
    word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())
}


def _scalar(event: Any) -> Any:
    """A scalar's value by the YAML 1.2 core schema, where `no` and 12:30 are texts; here .inf is one too."""
    text = event.value
    if not event.implicit[0]:  # quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 20:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
