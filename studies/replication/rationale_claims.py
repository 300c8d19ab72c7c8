"""The claims about chain of thought: what it does to labels, and what clamping does to policies after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import fill
from typing import Any

from studies.replication.intervals import estimate, verdict
from studies.replication.results import Claim, Results, table

BAI = "Bai et al. 2022"


def claims(results: Results) -> Iterator[Claim]:
    """Of one judge that was taught to answer both ways."""
    accuracy, brier = (results.gain("reasoned", "unreasoned", key) for key in ("accuracy_all", "brier"))
    if accuracy is not None and brier is not None:
        yield Claim(
            claim="chain of thought makes labels better (one judge, asked with and without)",
            source=f"{BAI}, section 2; Lee et al. 2023, section 4.4",
            result=f"accuracy {accuracy.text(100)} points, Brier score {brier.text(1, 4)}",
            verdict=verdict(accuracy),
            estimates={"accuracy": accuracy, "brier": brier},
        )
    sure = results.estimate("reasoned", "overconfidence")
    more = results.gain("reasoned", "unreasoned", "overconfidence")
    if sure is not None and more is not None:
        yield Claim(
            claim="labels that follow a chain of thought are too sure",
            source=f"{BAI}, section 4.3",
            result=f"confidence beyond gold's {sure.text(100)} points, {more.text(100)} more than without",
            verdict=verdict(sure),
            estimates={"overconfidence": sure, "more": more},
        )
    gold = results.gain("ppo.reasoned.clamped", "ppo.reasoned.free", "gold", "overall")
    model = results.gain("reasoned.clamped", "reasoned.free", "accuracy")
    if gold is not None and model is not None:
        yield Claim(
            claim="clamping labels that follow a chain of thought to 40-60% makes better policies (PPO)",
            source=f"{BAI}, section 4.3",
            result=f"gold overall {gold.text(100)} points, reward model {model.text(100)}",
            verdict=verdict(gold),
            estimates={"policy": gold, "reward_model": model},
        )
    policy = results.gain("ppo.reasoned.clamped", "ppo.unreasoned.free", "gold", "overall")
    harmless = results.gain("ppo.reasoned.clamped", "ppo.unreasoned.free", "gold", "harmless")
    if policy is not None and harmless is not None:
        yield Claim(
            claim="policies from clamped labels with chain of thought are better than from labels without (PPO)",
            source=f"{BAI}, section 4.3 and figure 8, of harmlessness",
            result=f"gold overall {policy.text(100)} points, harmless {harmless.text(100)} points",
            verdict=verdict(policy),
            estimates={"policy": policy, "harmless": harmless},
        )


_NOTE = """The shipped judge writes nothing. One that was taught to compare two answers in words, and to answer at once,
is asked both ways. {right}% of its comparisons are right, word for word. It learnt its letters with gold's
probabilities, so it is calibrated by its making, and clamping has no excess to take away. After words its two orders
disagree more often, and such pairs are left out."""
_WAYS = (
    ("unreasoned", "without", "unreasoned.free"),
    ("reasoned", "with", "reasoned.free"),
    ("reasoned", "with, clamped to 40-60%", "reasoned.clamped"),
)


def tables(results: Results) -> list[tuple[str, str]]:
    """(heading, Markdown table) of labels, reward models and policies with and without chain of thought."""
    rows = []
    for labels, shown, model in _WAYS:
        if not results.has(labels, model, f"ppo.{model}"):
            continue
        cells = [shown, estimate(list(results.each(labels, _left_out).values())).text(100)]
        for job, path, scale in (
            (labels, ("accuracy_all",), 100),
            (labels, ("overconfidence",), 100),
            (model, ("accuracy",), 100),
            (f"ppo.{model}", ("gold", "harmless"), 100),
            (f"ppo.{model}", ("gold", "helpful"), 100),
            (f"ppo.{model}", ("gold", "overall"), 100),
        ):
            cells.append(estimate(list(results.figures(job, *path).values())).text(scale))
        rows.append(cells)
    head = [
        "chain of thought",
        "pairs left out, %",
        "labels' accuracy before clamping, %",
        "their confidence beyond gold's, points",
        "reward model's accuracy, %",
        "PPO harmless, %",
        "helpful, %",
        "overall, %",
    ]
    if not rows:
        return []
    right = estimate(list(results.figures("reasoner", "rationales_right").values()))
    note = fill(_NOTE.format(right=right.text(100)), 118)
    return [("Labels with and without chain of thought", f"{note}\n\n{table(head, rows)}")]


def _left_out(metrics: Mapping[str, Any]) -> float:
    """The share of pairs without a label to train on."""
    return 1 - sum(metrics["statuses"].get(status, 0) for status in ("ok", "tie")) / metrics["pairs"]
