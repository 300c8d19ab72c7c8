"""How a row of each format is read; which format it is, `formats` tells by the fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from common.rows.compare import TIE, Content, among, asked, between, conversation, from_answers
from common.rows.source import fail, kind
from common.rows.turns import Turns, messages, prompt_turns, steered, text

Row = Mapping[str, Any]
Parser = Callable[[Row, str], Content]


def _question(row: Row, place: str) -> Any:
    """The prompt under whichever name it has; None where there is none."""
    if "prompt" in row:
        return row["prompt"]
    if "question" in row:
        question = row["question"]
        return question.get("full_text") if isinstance(question, dict) else question
    parts = [text(row[name], name, place) for name in ("instruction", "input") if row.get(name)]
    return "\n\n".join(parts) or None


def _asked(row: Row, place: str) -> Turns:
    question = _question(row, place)
    if question is None:
        fail(place, "instruction" if "instruction" in row else "prompt", "is missing or empty")
    return prompt_turns(question, "prompt", place)


def number(row: Row, name: str, place: str, allowed: str, low: float, high: float) -> float:
    """A number between `low` and `high`, or a text that spells one. Raises DataError."""
    value = row[name]
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = row[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        shown = repr(row[name]) if not isinstance(row[name], bool) else kind(row[name])
        fail(place, name, f"{shown[:60]} is not {allowed}")
    return float(value)


def prompt_row(row: Row, place: str) -> Content:
    turns = prompt_turns(row["prompt"], "prompt", place)
    cut = "the answer after the last user turn was cut off" if asked(turns) != turns else ""
    return Content(prompt=asked(turns), note=cut)


def conversation_row(row: Row, place: str) -> Content:
    name = next(name for name in ("messages", "conversations", "conversation") if name in row)
    turns = messages(row[name], name, place)
    return Content(prompt=asked(turns), conversation=turns)


def pair_row(row: Row, place: str) -> Content:
    chosen, rejected = row["chosen"], row["rejected"]
    if any(
        isinstance(side, list) and side and all(isinstance(t, str) for t in side)
        for side in (chosen, rejected)
    ):
        graded = [
            (text(answer, f"{name}[{n}]", place), grade)
            for name, side, grade in (("chosen", chosen, 1.0), ("rejected", rejected, 0.0))
            for n, answer in enumerate(side if isinstance(side, list) else [side])
        ]
        return among(_asked(row, place), graded)
    question, around = _question(row, place), None
    if name := next((name for name in ("messages", "conversations") if name in row), None):
        around = messages(row[name], name, place)
        if question is None and around[-1]["role"] == "user":
            question = around
    return replace(from_answers(question, chosen, rejected, 1.0, place), conversation=around)


def lone_answer_row(row: Row, place: str) -> Content:
    name = "completion" if "completion" in row else "response"
    turns = conversation(row["prompt"], row[name], name, place)
    prompt = prompt_turns(row["prompt"], "prompt", place)
    if turns is None:
        return Content(prompt=asked(prompt), why_no_pair="prompt is none of the completion's turns")
    label = row.get("label", row.get("is_safe"))
    if turns[-1]["role"] != "assistant" or asked(turns) != turns[:-1]:
        return Content(
            prompt=asked(turns), conversation=turns, why_no_pair="no user turn stands before one answer"
        )
    return Content(
        prompt=turns[:-1],
        conversation=turns,
        answer=turns[-1]["content"],
        label=label,
        why_no_pair="one answer alone",
    )


def instruction_row(row: Row, place: str) -> Content:
    turns: Turns = []
    for n, turn in enumerate(row.get("history") or []):
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(side, str) for side in turn):
            fail(place, f"history[{n}]", "expected [question, answer]")
        turns += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    turns += _asked(row, place)
    answer = {"role": "assistant", "content": text(row["output"], "output", place)}
    return Content(prompt=turns, conversation=[*turns, answer])


def scored_row(row: Row, place: str) -> Content:
    prompt = steered(text(row["prompt"], "prompt", place))
    score = number(row, "helpfulness", place, "a score from 0 to 4", 0, 4)
    return Content(prompt=prompt, answer=text(row["response"], "response", place), score=score)


def _two(
    prompt: Turns, row: Row, names: tuple[str, str], lead: float, place: str, *, note: str = ""
) -> Content:
    """Two answers, of which the first is better where `lead` is above 0, the second where it is below."""
    first, second = (text(row[name], name, place) for name in names)
    return among(prompt, [(first, lead), (second, 0.0)], note=note)


def strength_rows(prompt: Callable[[Row, str], Turns], names: tuple[str, str], strength: str) -> Parser:
    def read(row: Row, place: str) -> Content:
        lead = -number(row, strength, place, "a preference from -3 to 3", -3, 3)
        return _two(prompt(row, place), row, names, lead, place)

    return read


def safe_rlhf_row(row: Row, place: str) -> Content:
    ids = [name for name in ("better_response_id", "safer_response_id") if name in row]
    found = {name: number(row, name, place, "0 or 1", 0, 1) for name in ids}
    if bad := next((name for name, value in found.items() if value not in (0, 1)), None):
        fail(place, bad, f"{row[bad]!r} is not 0 or 1")
    note = (
        "safer_response_id names the other answer; better_response_id was taken"
        if len(set(found.values())) > 1
        else ""
    )
    lead = 0.5 - found[ids[0]]
    return _two(_asked(row, place), row, ("response_0", "response_1"), lead, place, note=note)


def graded_rows(field: str, answer: str, grade: str, sign: int) -> Parser:
    """Graded answers as a list of objects."""

    def read(row: Row, place: str) -> Content:
        if not isinstance(row[field], list):
            fail(place, field, f"expected a list, got {kind(row[field])}")
        graded = []
        for n, one in enumerate(row[field]):
            if not isinstance(one, dict) or one.get(answer) is None or one.get(grade) is None:
                fail(place, f"{field}[{n}]", f"expected an object with {answer} and {grade}")
            score = number(one, grade, f"{place}: {field}[{n}]", "a number", -1e9, 1e9)
            graded.append((text(one[answer], f"{field}[{n}].{answer}", place), sign * score))
        return among(_asked(row, place), graded)

    return read


def ranked_row(row: Row, place: str) -> Content:
    name = "scores" if "scores" in row else "ranks"
    answers, grades = row["responses"], row[name]
    for field, side in (("responses", answers), (name, grades)):
        if not isinstance(side, list):
            fail(place, field, f"expected a list, got {kind(side)}")
    if len(answers) != len(grades):
        fail(place, name, f"{len(grades)} of {len(answers)} responses")
    sign = 1 if name == "scores" else -1
    numbers = [number({name: g}, name, place, "a list of numbers", -1e9, 1e9) for g in grades]
    texts = [text(answer, f"responses[{n}]", place) for n, answer in enumerate(answers)]
    return among(_asked(row, place), [(t, sign * g) for t, g in zip(texts, numbers, strict=True)])


def shp_row(row: Row, place: str) -> Content:
    label = number(row, "labels", place, "1 (A is better) or 0 (B is)", 0, 1)
    if label not in (0, 1):
        fail(place, "labels", f"{row['labels']!r} is not 1 (A is better) or 0 (B is)")
    prompt = prompt_turns(text(row["history"], "history", place), "history", place)
    return _two(prompt, row, ("human_ref_A", "human_ref_B"), label - 0.5, place)


def webgpt_row(row: Row, place: str) -> Content:
    scores = [number(row, name, place, "a score from -1 to 1", -1, 1) for name in ("score_0", "score_1")]
    return _two(_asked(row, place), row, ("answer_0", "answer_1"), scores[0] - scores[1], place)


def alpaca_row(row: Row, place: str) -> Content:
    """1 and 2 name the better output, 0 and 1.5 are ties; between them, less 1, lies the probability of the second."""
    found = [
        number(row, n, place, "1 or 2 (or 0, or between them)", 0, 2)
        for n in ("preference", "label")
        if n in row
    ]
    value = found[0]
    if len(set(found)) > 1:
        fail(place, "label", f"{row['label']!r} and preference {row['preference']!r} name two answers")
    if 0 < value < 1:
        fail(place, "preference", f"{value} is not 1 or 2 (or 0, or between them)")
    prompt, outputs = _asked(row, place), [text(row[n], n, place) for n in ("output_1", "output_2")]
    if value in (0, 1.5):
        return Content(prompt=prompt, why_no_pair=TIE)
    graded = [(outputs[0], 1.5 - value), (outputs[1], 0.0)]
    return among(prompt, graded, p=max(value - 1, 2 - value))


def arena_row(row: Row, place: str) -> Content:
    first, second = (messages(row[name], name, place) for name in ("conversation_a", "conversation_b"))
    winner = row["winner"]
    if winner in ("tie", "tie (bothbad)", "both_bad", "bothbad"):
        return Content(prompt=asked(first), why_no_pair=TIE)
    if winner not in ("model_a", "model_b"):
        fail(place, "winner", f"{str(winner)[:40]!r} is not one of model_a, model_b, tie, tie (bothbad)")
    return between(first, second) if winner == "model_a" else between(second, first)
