"""The whole story of one label as plain lines, as `charter labels explain` prints it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from judges import Label
    from judges.explain import Explanation


def story(x: Explanation) -> list[str]:
    """The explanation as plain lines; texts of models are printable and indented."""
    from judges.text import printable

    def block(text: str) -> list[str]:
        return [f"    {line}" for line in printable(text).split("\n")]

    label, c = x.label, x.made_with["constitution"]
    lines = [
        f"label      {label.digest}",
        f"pair       {printable(label.pair_id)}",
        f"status     {label.status}{'' if label.detail is None else f' ({printable(label.detail)})'}",
        f"p          {decimals(label.p)}  "
        f"(a first: {decimals(label.p_ab)}, b first: {decimals(label.p_ba)}, spread {decimals(label.spread)})",
        *(
            []
            if label.p_raw == label.p
            else [f"before     {decimals(label.p_raw)}, as it was before the clamp"]
        ),
        f"winner     {_winner(label)}",
        f"made       {_when(x.created_at)} under {c['ref']}, label set {x.label_set[:12]}",
        f"settings   {json.dumps(x.made_with['settings'])}",
    ]
    for verdict in x.verdicts:
        what = f"{verdict.winner} ({verdict.why})" if verdict.why else verdict.winner
        lines.append(f"person     {printable(verdict.who)}, {_when(verdict.created_at)}: {printable(what)}")
    for message in x.pair.prompt:
        lines += [f"{message['role']}:", *block(message["content"])]
    lines += ["response a:", *block(x.pair.a), "response b:", *block(x.pair.b)]
    for j in x.judgements:
        r, judge = j.reading, j.judge
        logprobs = "none" if r.logprobs is None else ", ".join(f"{lp:.4f}" for lp in r.logprobs)
        prompt = "as shown below" if j.call is not None else "the stored template renders another prompt"
        lines += [
            "",
            f"judgement  {j.key}",
            f"principle  {j.principle_id}: {printable(j.question)}",
            f"order      {j.order}   status {r.status}{'' if r.detail is None else f' ({printable(r.detail)})'}",
            f"logprobs   {logprobs}",
            f"judge      {judge.kind}: {judge.model}, revision {judge.revision[:16]}, {judge.build}",
            f"spent      {r.prompt_tokens}+{r.completion_tokens} tokens, {r.latency_s:.3f} s"
            + ("" if r.cost is None else f", cost {r.cost:.6f}")
            + f", {_when(j.created_at)}",
            f"prompt     {j.prompt_digest[:16]}, {prompt}",
        ]
        if j.call is not None:
            for message in j.call.messages:
                lines += [f"  {message['role']}:", *block(message["content"])]
            if j.call.text is not None:
                lines += block(j.call.text)
        if r.text is not None:
            lines += ["  the judge wrote:", *block(r.text)]
    for status, detail, at in x.failures:
        lines.append(f"lost call  {_when(at)}: {status} ({printable(detail or '')})")
    return lines


def _winner(label: Label) -> str:
    if label.winner is None:
        return "none"
    return label.winner if label.status == "ok" else f"none; {label.winner} is ahead"


def decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
