"""How a row is read of published sets whose shape is their own; which set it is, `formats` tells by the fields."""

from __future__ import annotations

import json
from typing import Any

from common.rows.compare import TIE, Content, among, asked, between
from common.rows.parsers import Row, number
from common.rows.source import fail, kind
from common.rows.turns import Turns, prompt_turns, text

WINNERS = ("winner_model_a", "winner_model_b", "winner_tie")


def rounds_row(row: Row, place: str) -> Content:
    """Kaggle's form of an arena: each side's texts as a list, one a round, and three columns that say who won."""
    asked_texts, *sides = (_texts(row[name], name, place) for name in ("prompt", "response_a", "response_b"))
    won = [number(row, name, place, "0 or 1", 0, 1) for name in WINNERS]
    if sorted(won) != [0, 0, 1]:
        fail(
            place,
            WINNERS[0],
            f"{', '.join(f'{w:g}' for w in won)} with {', '.join(WINNERS[1:])}: not one of them is 1",
        )
    conversations: list[Turns] = []
    for name, answers in zip(("response_a", "response_b"), sides, strict=True):
        if len(answers) != len(asked_texts):
            fail(place, name, f"{len(answers)} answers to {len(asked_texts)} prompts")
        if None in (*answers, *asked_texts):
            known = [{"role": "user", "content": one} for one in asked_texts[:1] if one is not None]
            return Content(prompt=known, why_no_pair=f"an answer of {name} or a prompt is null")
        turns = zip(asked_texts, answers, strict=True)
        roles = ("user", "assistant")
        conversations.append(
            [{"role": r, "content": t or ""} for turn in turns for r, t in zip(roles, turn, strict=True)]
        )
    first, second = conversations
    if won[2]:
        return Content(prompt=asked(first), why_no_pair=TIE)
    return between(first, second) if won[0] else between(second, first)


def _texts(value: Any, name: str, place: str) -> list[str | None]:
    """A list of texts, as such or as JSON; some are null."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as e:
            fail(place, name, f"is not a JSON list of texts: {e}")
    if not isinstance(value, list) or not value:
        fail(place, name, f"expected a list of texts, got {kind(value)}")
    for n, one in enumerate(value):
        if one is not None:
            text(one, f"{name}[{n}]", place)
    return value


def summaries_row(row: Row, place: str) -> Content:
    """Two summaries of a post (Stiennon et al. 2020, whose prompt this is); `choice` is the better one's number."""
    info, summaries = row["info"], row["summaries"]
    if not isinstance(info, dict):
        fail(place, "info", f"expected an object, got {kind(info)}")
    body = info.get("post") or info.get("article")
    parts = [
        ("SUBREDDIT: r/", info.get("subreddit")),
        ("TITLE: ", info.get("title")),
        ("POST: " if info.get("post") else "ARTICLE: ", text(body, "info.post", place)),
    ]
    prompt = "\n\n".join(f"{head}{said}" for head, said in parts if said) + "\n\nTL;DR:"
    choice = number(row, "choice", place, "0 or 1", 0, 1)
    if choice not in (0, 1):
        fail(place, "choice", f"{row['choice']!r} is not 0 or 1")
    if (
        not isinstance(summaries, list)
        or len(summaries) != 2
        or not all(isinstance(s, dict) for s in summaries)
    ):
        fail(place, "summaries", "expected two objects with text")
    texts = [text(one.get("text"), f"summaries[{n}].text", place) for n, one in enumerate(summaries)]
    return among([{"role": "user", "content": prompt}], [(texts[0], 0.5 - choice), (texts[1], 0.0)])


def transcript_row(row: Row, place: str) -> Content:
    """Anthropic's red-team attempts: a whole conversation as one transcript."""
    turns = prompt_turns(text(row["transcript"], "transcript", place), "transcript", place)
    return Content(prompt=asked(turns), conversation=turns)


def context_row(row: Row, place: str) -> Content:
    """Dolly's instructions, some with a text that they are about."""
    parts = [text(row[name], name, place) for name in ("instruction", "context") if row.get(name)]
    turns = [{"role": "user", "content": "\n\n".join(parts)}]
    answer = {"role": "assistant", "content": text(row["response"], "response", place)}
    return Content(prompt=turns, conversation=[*turns, answer])
