"""Prompt templates: folders of Jinja files that turn what is judged, and a principle, into a call.

A set is a folder with `pairwise.j2`; `rationale.j2` (chain of thought, always a chat, whose block `conclude` then
asks for the letter), `verdict.j2` (JSON verdicts) and `pointwise.j2` (scores) serve the modes of their names. A file
with blocks named `system`, `user` and `assistant` becomes a chat (exemplars as earlier turns); a file with a block
`completion` becomes plain text for a base model; a file without blocks becomes a single user message. Variables:
`question`, `conversation` (one string), `turns` (messages), `responses` (pairs of letter and text, as shown),
`letters`, `a` and `b` (the first two texts), `answer` and `rationale` (of an exemplar), `tag` (see `fence_tag`),
`response` (pointwise), and in `completion` also `exemplars`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from common.digest import digest
from judges.errors import JudgeError
from judges.records import LETTERS, Call, Message, Order, Pair, Ranking, Sampling, check_turns

SHIPPED = Path(__file__).parents[1] / "templates"
SCORES = tuple(str(n) for n in range(1, 11))
"""The answers to a pointwise question."""


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
    @property
    def rationale(self) -> str: ...


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
    """One string: the content of a single user turn, otherwise lines `Human: …`, `Assistant: …` and so on.

    Raises JudgeError for a turn whose role is none of `ROLES`.
    """
    check_turns("conversation", turns)
    if len(turns) == 1 and turns[0]["role"] == "user":
        return turns[0]["content"]
    names = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}
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

    def pairwise(
        self, item: Pair | Ranking, question: str, order: Order, exemplars: Sequence[Exemplar] = ()
    ) -> Call:
        """The call that shows `item` in `order` under the principle `question`; its answer is a letter.

        Raises JudgeError, with file and line, for a template that does not render.
        """
        variables = _variables(question, item.prompt, [item.responses["abcd".index(x)] for x in order])
        shown = [[("user", v), ("assistant", v)] for v in map(_exemplar_variables, exemplars)]
        return self._call("pairwise.j2", variables, shown, options=variables["letters"])

    def rationale(
        self,
        item: Pair | Ranking,
        question: str,
        order: Order,
        exemplars: Sequence[Exemplar],
        sampling: Sampling,
    ) -> Call:
        """The call that asks for a comparison in words, and in `conclude` for the letter.

        Exemplars without a rationale are left out. Raises JudgeError where the set has no rationale.j2 of chat blocks.
        """
        if "user" not in self._template("rationale.j2").blocks:
            raise JudgeError(f"{self._place / 'rationale.j2'}: needs the blocks user, conclude and assistant")
        variables = _variables(question, item.prompt, [item.responses["abcd".index(x)] for x in order])
        shown = [
            [("user", v), ("", v), ("conclude", v), ("assistant", v)]
            for v in map(_exemplar_variables, exemplars)
            if v["rationale"]
        ]
        asked = self._rendered("rationale.j2", "conclude", variables)
        options = variables["letters"]
        return self._call("rationale.j2", variables, shown, options=options, write=sampling, conclude=asked)

    def verdict(
        self,
        item: Pair | Ranking,
        question: str,
        order: Order,
        exemplars: Sequence[Exemplar],
        sampling: Sampling,
    ) -> Call:
        """The call whose answer is a JSON verdict. Raises JudgeError where the set has no verdict.j2."""
        variables = _variables(question, item.prompt, [item.responses["abcd".index(x)] for x in order])
        shown = [[("user", v), ("assistant", v)] for v in map(_exemplar_variables, exemplars)]
        options = variables["letters"]
        return self._call("verdict.j2", variables, shown, options=options, write=sampling, verdict=True)

    def pointwise(self, prompt: Sequence[Message], response: str, question: str) -> Call:
        """The call that asks for a score of one response. Raises JudgeError where the set has no pointwise.j2."""
        variables = _variables(question, prompt, [response]) | {"response": response}
        return self._call("pointwise.j2", variables, [], options=SCORES)

    def _call(
        self,
        file: str,
        variables: Mapping[str, Any],
        exemplars: Sequence[Sequence[tuple[str, Mapping[str, Any]]]],
        **more: Any,
    ) -> Call:
        """A call from a file's blocks. Each exemplar is a list of (block, variables); "" stands for its rationale."""
        blocks = self._template(file).blocks
        if "completion" in blocks:
            shown = {**variables, "exemplars": [turns[0][1] for turns in exemplars]}
            return Call(text=self._rendered(file, "completion", shown), **more)
        if "user" not in blocks:
            return Call(
                messages=({"role": "user", "content": self._rendered(file, None, variables)},), **more
            )
        messages: list[Message] = []
        if "system" in blocks:
            messages.append({"role": "system", "content": self._rendered(file, "system", {})})
        for turns in exemplars:
            for n, (block, values) in enumerate(turns):
                content = self._rendered(file, block, values) if block else values["rationale"]
                messages.append({"role": "assistant" if n % 2 else "user", "content": content})
        messages.append({"role": "user", "content": self._rendered(file, "user", variables)})
        return Call(messages=tuple(messages), **more)

    def _rendered(self, file: str, block: str | None, variables: Mapping[str, Any]) -> str:
        """A file, or one of its blocks alone; Jinja renders only whole files, so the block's generator is asked."""
        template = self._template(file)
        try:
            if block is None:
                return template.render(dict(variables))
            if block not in template.blocks:
                raise jinja2.TemplateError(f"has no block {block!r}, which is needed here")
            return "".join(template.blocks[block](template.new_context(dict(variables))))
        except jinja2.TemplateError as error:
            raise self._error(file, error) from error

    def _template(self, file: str) -> jinja2.Template:
        if file not in self.sources:
            raise JudgeError(f"template set {str(self._place)!r} has no {file}, which this mode needs")
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


def _variables(question: str, turns: Sequence[Message], responses: Sequence[str]) -> dict[str, Any]:
    letters = LETTERS[: len(responses)]
    return {
        "question": question,
        "turns": turns,
        "conversation": transcript(turns),
        "responses": list(zip(letters, responses, strict=True)),
        "letters": letters,
        "a": responses[0],
        "b": responses[1] if len(responses) > 1 else None,
        "tag": fence_tag([*(t["content"] for t in turns), *responses]),
    }


def _exemplar_variables(exemplar: Exemplar) -> dict[str, Any]:
    variables = _variables(exemplar.question, exemplar.conversation, [exemplar.a, exemplar.b])
    return variables | {"answer": LETTERS["ab".index(exemplar.better)], "rationale": exemplar.rationale}
