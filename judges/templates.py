"""Prompt templates: folders of Jinja files that turn a pair and a principle into a call.

A set is a folder with `pairwise.j2`. A file with blocks named `system`, `user` and `assistant` becomes a chat
(exemplars as earlier turns); a file with a block `completion` becomes plain text for a base model; a file
without blocks becomes a single user message. Variables: `question`, `conversation` (one string), `turns`
(messages), `a` (shown first), `b`, `answer` (of an exemplar), `tag` (see `fence_tag`), and in `completion`
also `exemplars`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from judges.digests import digest
from judges.errors import JudgeError
from judges.records import Call, Message, Order, Pair

SHIPPED = Path(__file__).parent / "templates"
LETTERS = ("A", "B")


class Exemplar(Protocol):
    """A worked comparison, as `constitution.ComparisonExemplar` has it; `better` is "a" or "b"."""

    @property
    def conversation(self) -> tuple[Message, ...]: ...
    @property
    def question(self) -> str: ...
    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def better(self) -> str: ...


def fence_tag(texts: Sequence[str]) -> str:
    """A short code that none of `texts` contains, the same for the same texts in any order.

    It depends on the texts themselves, so their author cannot know it while writing, and if a text holds it
    all the same, the next candidate is taken.
    """
    seed = hashlib.sha256("\0".join(sorted(texts)).encode("utf-8", "surrogatepass")).hexdigest()
    while any(seed[:12] in text for text in texts):
        seed = hashlib.sha256(seed.encode()).hexdigest()
    return seed[:12]


def transcript(turns: Sequence[Message]) -> str:
    """One string: the content of a single user turn, otherwise lines `Human: …` and `Assistant: …`."""
    if len(turns) == 1 and turns[0]["role"] == "user":
        return turns[0]["content"]
    names = {"user": "Human", "assistant": "Assistant", "system": "System"}
    return "\n".join(f"{names[t['role']]}: {t['content']}" for t in turns)


class TemplateSet:
    """The templates of one folder, shipped (by name) or the user's own (by path)."""

    def __init__(self, ref: str | Path, sources: Mapping[str, str] | None = None) -> None:
        """A set by name or folder; with `sources` (file name to text), one that was stored and is now named `ref`.

        Raises JudgeError when there is no such set.
        """
        shipped = SHIPPED / str(ref)
        self._place = shipped if shipped.is_dir() and "/" not in str(ref) else Path(ref)
        self.sources: Mapping[str, str] = _read_sources(self._place) if sources is None else sources
        if "pairwise.j2" not in self.sources:
            known = ", ".join(sorted(p.name for p in SHIPPED.iterdir() if p.is_dir()))
            raise JudgeError(
                f"no template set {str(ref)!r}: give one of {known}, or a folder with pairwise.j2"
            )
        self._environment = SandboxedEnvironment(
            loader=jinja2.DictLoader(self.sources),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    @cached_property
    def digest(self) -> str:
        """Digest of the names and texts of the set's files."""
        return digest(dict(self.sources))

    def pairwise(self, pair: Pair, question: str, order: Order, exemplars: Sequence[Exemplar] = ()) -> Call:
        """The call that shows `pair` in `order` under the principle `question`.

        Raises JudgeError, with file and line, for a template that does not render.
        """
        a, b = (pair.a, pair.b) if order == "ab" else (pair.b, pair.a)
        variables = _variables(question, pair.prompt, a, b)
        template = self._template("pairwise.j2")
        blocks = template.blocks
        try:
            if "completion" in blocks:
                shown = [_exemplar_variables(e) for e in exemplars]
                return Call(text=_block(template, "completion", variables | {"exemplars": shown}))
            if "user" not in blocks:
                return Call(messages=({"role": "user", "content": template.render(variables)},))
            messages: list[Message] = []
            if "system" in blocks:
                messages.append({"role": "system", "content": _block(template, "system", {})})
            for exemplar in exemplars:
                shown_variables = _exemplar_variables(exemplar)
                for role in ("user", "assistant"):
                    messages.append({"role": role, "content": _block(template, role, shown_variables)})
            messages.append({"role": "user", "content": _block(template, "user", variables)})
        except jinja2.TemplateError as error:
            raise self._error("pairwise.j2", error) from error
        return Call(messages=tuple(messages))

    def _template(self, file: str) -> jinja2.Template:
        try:
            return self._environment.get_template(file)
        except jinja2.TemplateError as error:
            raise self._error(file, error) from error

    def _error(self, file: str, error: jinja2.TemplateError) -> JudgeError:
        line = getattr(error, "lineno", None)
        place = f"{self._place / file}:{line}" if line else str(self._place / file)
        return JudgeError(f"{place}: {error.message or error}")


def _read_sources(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.j2"))}


def _variables(question: str, turns: Sequence[Message], a: str, b: str) -> dict[str, Any]:
    return {
        "question": question,
        "turns": turns,
        "conversation": transcript(turns),
        "a": a,
        "b": b,
        "tag": fence_tag([*(t["content"] for t in turns), a, b]),
    }


def _exemplar_variables(exemplar: Exemplar) -> dict[str, Any]:
    variables = _variables(exemplar.question, exemplar.conversation, exemplar.a, exemplar.b)
    return variables | {"answer": LETTERS["ab".index(exemplar.better)]}


def _block(template: jinja2.Template, name: str, variables: Mapping[str, Any]) -> str:
    """One block of a template alone; Jinja renders only whole files, so its generator is asked directly."""
    if name not in template.blocks:
        raise jinja2.TemplateError(f"exemplars need a block {name!r}")
    return "".join(template.blocks[name](template.new_context(dict(variables))))
