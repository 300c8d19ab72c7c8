"""The whole story of one label as plain lines, as `charter labels explain` prints it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from judges import Label
    from judges.explain import ExplainedJudgement, Explanation


def story(x: Explanation) -> list[str]:
    """The explanation as plain lines; texts of models are printable and indented."""
    from common.text import printable

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
        *([f"same text  {', '.join(x.same_text)}"] if x.same_text else []),
        f"settings   {json.dumps(x.made_with['settings'])}",
    ]
    for verdict in x.verdicts:
        what = f"{verdict.winner} ({verdict.why})" if verdict.why else verdict.winner
        lines.append(f"person     {printable(verdict.who)}, {_when(verdict.created_at)}: {printable(what)}")
    for message in x.pair.prompt:
        lines += [f"{message['role']}:", *_block(message["content"])]
    lines += ["response a:", *_block(x.pair.a), "response b:", *_block(x.pair.b)]
    prompts: set[str] = set()
    for j in (*x.judgements, *x.failures):
        lines += ["", *_call(j, prompts)]
    return lines


def _call(j: ExplainedJudgement, prompts: set[str]) -> list[str]:
    """One call, answered or lost; its prompt, unless it is one of `prompts`, to which it is added."""
    from common.text import printable
    from judges.records import TRANSIENT

    r, judge = j.reading, j.judge
    lost = r.status in TRANSIENT
    logprobs = "none" if r.logprobs is None else ", ".join(f"{lp:.4f}" for lp in r.logprobs)
    if j.call is None:
        prompt = "the stored template renders another prompt"
    else:
        prompt = "as shown above" if j.prompt_digest in prompts else "as shown below"
    lines = [
        f"{'lost call' if lost else 'judgement'}  {j.key}",
        f"principle  {j.principle_id}: {printable(j.question)}",
        f"order      {j.order}   status {r.status}{'' if r.detail is None else f' ({printable(r.detail)})'}",
        *([] if lost else [f"logprobs   {logprobs}"]),
        f"judge      {judge.kind}: {judge.model}, revision {judge.revision[:16]}, {judge.build}",
        f"spent      {'' if lost else f'{r.prompt_tokens}+{r.completion_tokens} tokens, '}{r.latency_s:.3f} s"
        + ("" if r.cost is None else f", cost {r.cost:.6f}")
        + f", {_when(j.created_at)}",
        f"prompt     {j.prompt_digest[:16]}, {prompt}",
    ]
    if j.call is not None and j.prompt_digest not in prompts:
        prompts.add(j.prompt_digest)
        for message in j.call.messages:
            lines += [f"  {message['role']}:", *_block(message["content"])]
        if j.call.text is not None:
            lines += _block(j.call.text)
        if j.call.conclude is not None:
            lines += ["  user, after what the judge wrote:", *_block(j.call.conclude)]
    if r.text is not None:
        lines += ["  the judge wrote:", *_block(r.text)]
    return lines


def _block(text: str) -> list[str]:
    from common.text import printable

    return [f"    {line}" for line in printable(text).split("\n")]


def _winner(label: Label) -> str:
    if label.winner is None:
        return "none"
    return label.winner if label.status == "ok" else f"none; {label.winner} is ahead"


def decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
