"""The formats of rows that people have, each known by its field names.

| format | fields |
|---|---|
| prompts | `prompt` |
| conversations | `messages`; ShareGPT's `conversations`; `conversation` |
| demonstrations | `prompt`, and `completion` or `response`; `instruction`, `input`, `output` |
| pairs (TRL, UltraFeedback-binarized, dpo-mix, RewardBench 1, our export) | `prompt`, `chosen`, `rejected` |
| hh-rlhf, and TRL's pairs without a prompt | `chosen`, `rejected` |
| RewardBench 2 | `prompt`, `chosen` and `rejected` as lists of texts |
| unpaired answers (TRL's KTO, BeaverTails) | `prompt`, `completion` or `response`, `label` or `is_safe` |
| HelpSteer2 | `prompt`, `response`, `helpfulness` (0 to 4): neighbouring rows of one prompt are compared |
| HelpSteer2's preferences | `prompt`, `response_1`, `response_2`, `preference_strength` (-3 to 3, below 0 the first) |
| HelpSteer3 | `context`, `response1`, `response2`, `overall_preference` (-3 to 3, below 0 the first) |
| PKU-SafeRLHF | `prompt`, `response_0`, `response_1`, `better_response_id`, `safer_response_id` |
| Nectar | `prompt`, `answers` of `{"answer", "rank"}` |
| UltraFeedback | `instruction`, `completions` of `{"response", "overall_score"}` |
| ranked or scored answers | `prompt`, `responses`, and `scores` or `ranks` (1 is the best) |
| SHP | `history`, `human_ref_A`, `human_ref_B`, `labels` (1: A, 0: B) |
| WebGPT | `question` (its `full_text`), `answer_0`, `answer_1`, `score_0`, `score_1` |
| AlpacaFarm | `instruction`, `input`, `output_1`, `output_2`, `preference` or `label` (1 or 2) |
| LMSYS arena | `conversation_a`, `conversation_b`, `winner` (model_a, model_b, tie, tie (bothbad)) |
| Kaggle's arena | `prompt`, `response_a`, `response_b` (JSON lists), `winner_model_a`, `winner_model_b`, `winner_tie` |
| summaries with a choice | `info` (`post`, `title`, `subreddit`), `summaries` of `{"text"}`, `choice` (0 or 1) |
| Stack Exchange's preferences | `question`, `answers` of `{"text", "pm_score"}` |
| red-team attempts | `transcript` |
| Dolly | `instruction`, `context`, `response` |
| multiple choice | `prompt`, `corrects`, `incorrects` |

A prompt may also stand under `question`, `instruction` (with `input`) or `input`, and a system turn in `system` or
`system_prompt`. Fields that are null are absent, other fields are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from common.errors import DataError
from common.rows.compare import Content
from common.rows.multiple_choice import multiple_choice
from common.rows.parsers import (
    Parser,
    Row,
    alpaca_row,
    arena_row,
    conversation_row,
    graded_rows,
    instruction_row,
    lone_answer_row,
    pair_row,
    prompt_row,
    ranked_row,
    safe_rlhf_row,
    scored_row,
    shp_row,
    strength_rows,
    webgpt_row,
)
from common.rows.published import context_row, rounds_row, summaries_row, transcript_row
from common.rows.source import fail
from common.rows.turns import Turns, prompt_turns, steered, text

_ANYWHERE = frozenset({"prompt", "question", "instruction", "response", "context"})


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format: the fields that tell it, others that it reads, and how a row of it is read."""

    title: str
    needs: frozenset[str]
    takes: frozenset[str]
    read: Parser
    compares: bool = True
    demonstrates: bool = False


def content_of(row: Mapping[str, Any], place: str) -> tuple[Format, Content]:
    """The format of a row and what it says. Raises DataError for an unknown or an ambiguous one."""
    present = {name: value for name, value in row.items() if value is not None}
    found = _format(frozenset(present))
    if isinstance(found, str):
        raise DataError(f"{place}: {found}")
    content = found.read(present, place)
    return found, _with_system(content, present, place)


def missing_field(present: frozenset[str], *, compares: bool = False) -> str:
    """Which one field would make a format of these fields, as " (rejected is missing beside chosen)"; "" if none would.

    With `compares`, a format of comparisons.
    """
    for known in FORMATS:
        lacking, telling = known.needs - present, known.needs & present - _ANYWHERE
        if known.compares >= compares and len(lacking) == 1 and telling:
            return f" ({next(iter(lacking))} is missing beside {', '.join(sorted(known.needs & present))})"
    return ""


@lru_cache(maxsize=256)
def _format(fields: frozenset[str]) -> Format | str:
    matching = [known for known in FORMATS if known.needs <= fields]
    best = [
        known
        for known in matching
        if not any(known.needs <= other.takes and not other.needs <= known.takes for other in matching)
    ]
    has = ", ".join(sorted(fields)) or "nothing"
    if len({known.read for known in best}) > 1:
        titles = " and ".join(known.title for known in best)
        return f"has {has}, which is ambiguous: {titles}; keep the fields of one"
    if not best:
        known_fields = "; ".join(", ".join(sorted(known.needs)) for known in FORMATS)
        return f"has {has}, which is no known format{missing_field(fields)}; known are {known_fields}"
    return best[0]


def _with_system(content: Content, row: Row, place: str) -> Content:
    """The row's own system text as the first turn."""
    for name in ("system", "system_prompt"):
        if row.get(name):
            turn = {"role": "system", "content": text(row[name], name, place)}
            return replace(
                content,
                prompt=_after(turn, content.prompt, name, place),
                conversation=content.conversation and _after(turn, content.conversation, name, place),
            )
    return content


def _after(system: dict[str, str], turns: Turns, name: str, place: str) -> Turns:
    if turns and turns[0]["role"] == "system":
        if turns[0] != system:
            fail(place, name, "is another text than the conversation's own system turn")
        return turns
    return [system, *turns]


def _known(
    title: str,
    needs: str,
    takes: str,
    read: Parser,
    *,
    compares: bool = True,
    demonstrates: bool = False,
) -> Format:
    required = frozenset(needs.split())
    return Format(
        title=title,
        needs=required,
        takes=required | frozenset(takes.split()) | {"system", "system_prompt"},
        read=read,
        compares=compares,
        demonstrates=demonstrates,
    )


_QUESTION = "prompt question instruction input"
FORMATS = (
    _known("prompts", "prompt", "", prompt_row, compares=False),
    _known("messages", "messages", "prompt", conversation_row, compares=False, demonstrates=True),
    _known(
        "ShareGPT's conversations", "conversations", "", conversation_row, compares=False, demonstrates=True
    ),
    _known("conversations", "conversation", "", conversation_row, compares=False, demonstrates=True),
    _known(
        "answers with a label",
        "prompt completion",
        "label",
        lone_answer_row,
        compares=False,
        demonstrates=True,
    ),
    _known("answers", "prompt response", "label is_safe", lone_answer_row, compares=False, demonstrates=True),
    _known(
        "instructions with an output",
        "instruction output",
        "input history",
        instruction_row,
        compares=False,
        demonstrates=True,
    ),
    _known("pairs", "chosen rejected", f"{_QUESTION} messages conversations conversation response", pair_row),
    _known("scored answers (HelpSteer2)", "prompt response helpfulness", "", scored_row),
    _known(
        "HelpSteer2's preferences",
        "prompt response_1 response_2 preference_strength",
        "",
        strength_rows(
            lambda r, at: steered(text(r["prompt"], "prompt", at)),
            ("response_1", "response_2"),
            "preference_strength",
        ),
    ),
    _known(
        "HelpSteer3",
        "context response1 response2 overall_preference",
        "",
        strength_rows(
            lambda r, at: prompt_turns(r["context"], "context", at),
            ("response1", "response2"),
            "overall_preference",
        ),
    ),
    _known(
        "PKU-SafeRLHF", "prompt response_0 response_1 better_response_id", "safer_response_id", safe_rlhf_row
    ),
    _known(
        "PKU-SafeRLHF", "prompt response_0 response_1 safer_response_id", "better_response_id", safe_rlhf_row
    ),
    _known("ranked answers (Nectar)", "prompt answers", "", graded_rows("answers", "answer", "rank", -1)),
    _known(
        "UltraFeedback",
        "instruction completions",
        "",
        graded_rows("completions", "response", "overall_score", 1),
    ),
    _known("scored answers", "prompt responses scores", "", ranked_row),
    _known("ranked answers", "prompt responses ranks", "", ranked_row),
    _known("SHP", "history human_ref_A human_ref_B labels", "", shp_row),
    _known("WebGPT", "question answer_0 answer_1 score_0 score_1", "", webgpt_row),
    _known("AlpacaFarm", "output_1 output_2 preference", f"{_QUESTION} label", alpaca_row),
    _known("AlpacaFarm", "output_1 output_2 label", f"{_QUESTION} preference", alpaca_row),
    _known("LMSYS arena", "conversation_a conversation_b winner", "", arena_row),
    _known(
        "Kaggle's arena",
        "prompt response_a response_b winner_model_a winner_model_b winner_tie",
        "",
        rounds_row,
    ),
    _known("summaries with a choice", "info summaries choice", "", summaries_row),
    _known(
        "Stack Exchange's preferences", "question answers", "", graded_rows("answers", "text", "pm_score", 1)
    ),
    _known("transcripts", "transcript", "", transcript_row, compares=False, demonstrates=True),
    _known(
        "instructions with a context",
        "instruction context response",
        "",
        context_row,
        compares=False,
        demonstrates=True,
    ),
    _known("multiple choice", "prompt corrects incorrects", "", multiple_choice),
)
