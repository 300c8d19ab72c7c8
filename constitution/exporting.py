"""Writing a constitution in the formats of other projects.

    paper         {"name": {"prompt": ["… CritiqueRequest: …"], "edit_request": "… RevisionRequest: …"}}
    instructions  ["Choose the response that …", …]: comparison principles, as the same paper publishes them
    huggingface   {"constitutions": [{"critic", "revision"}], "system_chat": [[messages…]]}
    markdown      a list of principles; "critique request → revision request" is a critique principle

The paper is Bai et al. 2022, arXiv 2212.08073; the third format is that of the recipe "Constitutional AI with
Open LLMs". None of them has weights, dimensions or notes, and only the first has ids: the rest is left out.
"""

from __future__ import annotations

import json
from typing import Any

from constitution.model import Constitution, ConstitutionError

FORMATS = ("paper", "instructions", "huggingface", "markdown")

WRAPPING = {
    "CritiqueRequest": ("\n\nCritiqueRequest: ", "\n\nCritique:"),
    "RevisionRequest": ("\n\nRevisionRequest: ", "\n\nRevision:"),
    "Instruction": ("\n", " Options:"),
}
"""What the paper's own prompts put before and after a text."""


def export_text(c: Constitution, fmt: str) -> str:
    """The enabled principles of `c` in one of FORMATS. Raises ConstitutionError when there are none."""
    critique = [p for p in c.critique if p.enabled]
    comparison = [p for p in c.comparison if p.enabled]
    missing = {"paper": not critique, "huggingface": not critique, "instructions": not comparison}
    if fmt not in FORMATS:
        raise ConstitutionError(f"format must be one of {', '.join(FORMATS)}, not '{fmt}'")
    if missing.get(fmt):
        kind = "comparison" if fmt == "instructions" else "critique"
        raise ConstitutionError(f"{c.ref} has no enabled {kind} principle, and '{fmt}' holds no others")
    if fmt == "markdown":
        parts = [f"# {c.name}"]
        if critique:
            bullets = [f"- {p.critique_request} → {p.revision_request}" for p in critique]
            parts.append("## Critique and revision\n\n" + "\n".join(bullets))
        if comparison:
            parts.append("## Comparison\n\n" + "\n".join(f"- {p.question}" for p in comparison))
        return "\n\n".join(parts) + "\n"
    data: Any
    if fmt == "paper":
        data = {
            p.id: {
                "prompt": [_wrap(p.critique_request, "CritiqueRequest")],
                "edit_request": _wrap(p.revision_request, "RevisionRequest"),
            }
            for p in critique
        }
    elif fmt == "instructions":
        data = [_wrap(p.question, "Instruction") for p in comparison]
    else:
        data = {
            "constitutions": [
                {"critic": p.critique_request, "revision": p.revision_request} for p in critique
            ],
            "system_chat": [
                [
                    *map(dict, e.conversation),
                    {"role": "assistant", "content": e.response},
                    {"role": "user", "content": e.critique_request},
                    {"role": "assistant", "content": e.critique},
                    {"role": "user", "content": e.revision_request},
                    {"role": "assistant", "content": e.revision},
                ]
                for e in c.critique_exemplars
            ],
        }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _wrap(text: str, kind: str) -> str:
    before, after = WRAPPING[kind]
    return f"{before}{text}{after}"
