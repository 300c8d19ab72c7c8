"""Critique and revision prompts, from templates; few-shot exemplars become earlier turns.

A template renders ONE user message. The same template renders each exemplar, and the exemplar's critique (or
revision) is the assistant turn after it, so that a chat model sees the task as it will be asked.

Model text is hostile. Templates receive it as values, never as template source; the default set wraps each
text in tags that end in `fence`, a digest of all the texts of that prompt: to contain it, a text would have
to invert sha256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from common.digest import digest
from constitution.model import ConstitutionError, CritiqueExemplar, CritiquePrinciple, Message, Problem

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
_SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}


def render_critique(
    templates: str | Path,
    conversation: Sequence[Message],
    response: str,
    principle: CritiquePrinciple,
    exemplars: Sequence[CritiqueExemplar] = (),
) -> list[dict[str, str]]:
    """Messages that ask for a critique of `response`; the critique is the assistant turn to generate.

    `templates` is a shipped set ("default", "microworld", "small") or a folder with critique.j2 and revision.j2.
    Raises ConstitutionError for an unknown set or a template that fails.
    """
    messages = []
    for e in exemplars:
        messages += _turn(
            templates, "critique", e.conversation, e.response, critique_request=e.critique_request
        )
        messages.append({"role": "assistant", "content": e.critique})
    return messages + _turn(
        templates, "critique", conversation, response, critique_request=principle.critique_request
    )


def render_revision(
    templates: str | Path,
    conversation: Sequence[Message],
    response: str,
    principle: CritiquePrinciple,
    exemplars: Sequence[CritiqueExemplar] = (),
    *,
    critique: str,
) -> list[dict[str, str]]:
    """Messages that ask to rewrite `response` in the light of `critique`; as `render_critique` otherwise."""
    messages = []
    for e in exemplars:
        fields = {"critique_request": e.critique_request, "revision_request": e.revision_request}
        messages += _turn(templates, "revision", e.conversation, e.response, critique=e.critique, **fields)
        messages.append({"role": "assistant", "content": e.revision})
    fields = {
        "critique_request": principle.critique_request,
        "revision_request": principle.revision_request,
    }
    return messages + _turn(templates, "revision", conversation, response, critique=critique, **fields)


def templates_digest(templates: str | Path) -> str:
    """Digest of a template set's texts: when it changes, critiques and revisions are stale."""
    folder = template_dir(templates)
    return digest({kind: _read(folder, kind) for kind in ("critique", "revision")})


def template_dir(templates: str | Path) -> Path:
    """The folder of a shipped set's name, or the folder itself."""
    for folder in (TEMPLATES / templates, Path(templates)):
        if folder.is_dir():
            return folder
    shipped = ", ".join(sorted(path.name for path in TEMPLATES.iterdir()))
    raise ConstitutionError(f"no template set '{templates}'; shipped: {shipped}; or give a folder")


def transcript(conversation: Sequence[Message]) -> str:
    """A single user turn as it is; several turns as "Human: …" and "Assistant: …" lines."""
    if len(conversation) == 1 and conversation[0]["role"] == "user":
        return conversation[0]["content"]
    return "\n".join(f"{_SPEAKERS[turn['role']]}: {turn['content']}" for turn in conversation)


def fence_of(texts: Mapping[str, object]) -> str:
    """Twelve hex digits, derived from the texts that they fence."""
    return hashlib.sha256(digest(texts).encode()).hexdigest()[:12]


def _turn(
    templates: str | Path, kind: str, conversation: Sequence[Message], response: str, **fields: str
) -> list[dict[str, str]]:
    from jinja2 import TemplateError

    folder = template_dir(templates)
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in conversation]
    values = {"turns": turns, "response": response, **fields}
    try:
        text = _compiled(_read(folder, kind)).render(
            conversation=transcript(turns), fence=fence_of(values), **values
        )
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise ConstitutionError(Problem(str(folder / f"{kind}.j2"), line, str(error))) from None
    return [{"role": "user", "content": text.strip()}]


def _read(folder: Path, kind: str) -> str:
    path = folder / f"{kind}.j2"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConstitutionError(Problem(str(path), None, f"cannot read the template: {reason}")) from None


@lru_cache(maxsize=32)
def _compiled(source: str) -> Template:
    # Imported here: `charter constitution check` renders nothing and need not wait for it.
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    return environment.from_string(source)
