"""Where a policy comes from, as sentences and tables; `flows.lineage` has the facts, `lineage_picture` the drawing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

Lineage = Mapping[str, Any]
SHORT = 12


def lineage_sentences(found: Lineage) -> list[str]:
    """What a person should know first; nothing without a lineage."""
    if not found:
        return []
    said = [f"Warning: {gap}." for gap in found["gaps"]]
    labels = sum(record["trained"]["labels"] for record in found["labels"])
    if labels:
        drawn = _drawn(found)
        people = _people(found)
        checked = sum(people.values())
        by = f"a person looked at {checked:,} of them" if checked else "no person looked at any of them"
        said.append(
            f"The policy comes from {labels:,} labels under {len([n for n in drawn.values() if n])} principles; {by}."
        )
    if found["judge_rewards"]:
        said.append("The judge's own marks were part of the policy's reward.")
    return said


def fact_rows(found: Lineage) -> list[list[str]]:
    """(what, in words): policy, reward models, labels, people, judge, exam, revisions, prompts, base, constitution."""
    rows = [["what", "which"]]
    method = f"{found['method'].upper()}, " if found["method"] else ""
    rows.append(["policy", f"{method}{found['step']}, digest {_short(found['digests'].get('model'))}"])
    if found["judge_rewards"]:
        rows.append(["reward", "the judge's own marks took part"])
    for model in found["reward_models"]:
        rows.append(["reward model", _reward_model(model)])
    for record in found["labels"]:
        rows += [[what, said] for what, said in _labels(record)]
    for revision in found["revisions"]:
        drawn = ", ".join(f"{name} {n:,}" for name, n in revision["principles"].items())
        rows.append(
            [
                "revisions",
                f"{revision['revised']:,} revised answers, {revision['harmless_kept']:,} kept as they were",
            ]
        )
        rows.append(["drawn for revisions", drawn])
    for step in found["steps"]:
        if step["stage"] == "prompts":
            counts = [
                f"{name} {step['metrics'][name]:,}" for name in step["outputs"] if name in step["metrics"]
            ]
            rows.append(["prompts", f"{', '.join(counts)} ({step['id']})"])
    if found["base"]:
        rows.append(
            [
                "base model",
                f"{PurePath(found['base']['path']).name}, digest {_short(found['base']['digest'])}",
            ]
        )
    for half, (ref, digest) in _constitutions(found).items():
        rows.append([f"constitution, {half} half", f"{ref}, digest {_short(digest)}"])
    return rows


def principle_rows(found: Lineage) -> list[list[str]]:
    """One row a comparison principle: how often the labels that trained drew it, and its share of all draws."""
    drawn = _drawn(found)
    dimensions = {p["id"]: p["dimension"] for record in found["labels"] for p in record["principles"]}
    total = sum(drawn.values())
    return [
        ["principle", "dimension", "drawn", "% of draws"],
        *(
            [name, dimensions[name] or "-", f"{n:,}", f"{100 * n / total:.1f}" if total else "-"]
            for name, n in sorted(drawn.items(), key=lambda item: (-item[1], item[0]))
        ),
    ]


def step_rows(found: Lineage) -> list[list[str]]:
    """One row a step from what came from outside to the policy: its folder, its result, and what it read."""
    rows = [["step", "under", "made from", "digest of the result"]]
    times = Counter(step["stage"] for step in found["steps"])
    for step in found["steps"]:
        under = step["constitution"]
        rows.append(
            [
                step["id"],
                f"{under['ref']} ({under['half']})" if under else "",
                ", ".join(dict.fromkeys(_source(name, read, times) for name, read in step["inputs"].items()))
                or "nothing",
                _short(_result(step["outputs"])),
            ]
        )
    return rows


def exam_words(exam: Mapping[str, Any] | None) -> str:
    """ "passed: accuracy 100% (95-100) of 80 pairs, flips 1%, kappa 0.98", or that none was taken."""
    if exam is None:
        return "not taken"
    figures = [
        f"accuracy {_percent(exam['accuracy'])} of {exam['pairs']:,} pairs",
        f"flips {_percent(exam['flips'])}",
    ]
    verdict = "passed" if exam["passed"] else f"failed ({'; '.join(exam['problems'])})"
    return f"{verdict}: {', '.join(figures)}, kappa {exam['kappa']:.2f}"


def judge_words(judge: Mapping[str, Any]) -> str:
    """Model, revision and kind of a judge."""
    return f"{judge['model']}, revision {_short(judge['revision'])}, {judge['kind']}"


def _labels(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    trained, people = record["trained"], record["people"]
    statuses = ", ".join(f"{n:,} {status}" for status, n in trained["statuses"].items())
    yield (
        "labels",
        f"{trained['labels']:,} of {record['pairs']:,} pairs trained: {statuses} ({record['step']})",
    )
    yield "soft and hard", f"{trained['soft']:,} soft, {trained['hard']:,} hard"
    yield "label set", f"{_short(record['label_set'])}; preferences {_short(record['preferences'])}"
    said = f"{people['confirmed']:,} labels confirmed, {people['overridden']:,} overridden"
    yield (
        "people",
        said + (f", {people['supplied']:,} given where the judge failed" if people["supplied"] else ""),
    )
    if record["judges"] is None:
        yield "judge", "unknown: the ledger is not here, or does not hold this label set"
    for judge in record["judges"] or ():
        yield "judge", judge_words(judge)
        yield "judge's exam", exam_words(judge["exam"])


def _reward_model(model: Mapping[str, Any]) -> str:
    digests = ", ".join(f"{name} {_short(digest)}" for name, digest in model["models"].items())
    said = f"{model['step']}, digest of {digests}; {model['targets']} targets"
    if model["human_share"]:
        said += f", {100 * model['human_share']:.0f}% people's own preferences"
    accuracy = model["metrics"].get("eval_accuracy")
    return said if accuracy is None else f"{said}; right on {100 * accuracy:.0f}% of held-out labels"


def _drawn(found: Lineage) -> Counter[str]:
    drawn: Counter[str] = Counter()
    for record in found["labels"]:
        for principle in record["principles"]:
            drawn[principle["id"]] += principle["drawn"]
    return drawn


def _people(found: Lineage) -> Counter[str]:
    people: Counter[str] = Counter()
    for record in found["labels"]:
        people.update(record["people"])
    return people


def _constitutions(found: Lineage) -> dict[str, tuple[str, str]]:
    halves = {}
    for step in found["steps"]:
        if step["constitution"]:
            under = step["constitution"]
            halves[under["half"]] = (under["ref"], under["half_digest"])
    return halves


def _source(name: str, read: Mapping[str, Any], times: Mapping[str, int]) -> str:
    """A step by its stage where there is one of it, else with its key; what came from outside with its role."""
    if read["step"] is None:
        return f"{name.replace('_', ' ')}: {PurePath(read['path']).name}"
    stage = read["step"].partition("/")[0]
    return stage if times[stage] == 1 else read["step"]


def _result(outputs: Mapping[str, str]) -> str | None:
    """The digest that says most of a step: of its model, else of its first output."""
    return outputs.get("model") or outputs.get("preferences") or next(iter(outputs.values()), None)


def _percent(share: Mapping[str, Any]) -> str:
    if share["share"] is None:
        return "not measured"
    return f"{100 * share['share']:.0f}% ({100 * share['low']:.0f}-{100 * share['high']:.0f})"


def _short(digest: str | None) -> str:
    return digest[:SHORT] if digest else "-"
