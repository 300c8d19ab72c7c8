"""The facts of a lineage in words: for the report, the terminal, and a model's card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePath

from common.statistics import Share
from flows.labelling.gates import AuditSummary
from flows.report.lineage.record import LabelRecord, LabelsExam, Lineage, RewardModelRecord

Fact = tuple[str, str]
SHORT = 12


def facts(found: Lineage, *, digits: int = SHORT) -> Iterator[Fact]:
    """(what, in words): policy, reward models, gold of early stopping, labels, people, judge, exam, revisions,
    prompts, base, constitution.

    Digests are cut to so many digits.
    """

    def cut(digest: str) -> str:
        return digest[:digits]

    if found.method:
        yield "policy", f"{found.method.upper()}, {found.step}, digest {cut(found.digests['model'])}"
    if found.judge_rewards:
        yield "reward", "the judge's own marks took part"
    for model in found.reward_models:
        yield "reward model", _reward_model(model, cut)
    for step in found.steps:
        if step.stage == "gold_model":
            decided = step.metrics["pairs"]
            yield "gold of early stopping", f"{step.id}, a model of {decided:,} pairs that people decided"
    for record in found.labels:
        yield from _labels(record, cut)
    for revision in found.revisions:
        kept = f"{revision.revised:,} revised answers, {revision.harmless_kept:,} kept as they were"
        yield "revisions", kept
        yield "drawn for revisions", ", ".join(f"{name} {n:,}" for name, n in revision.principles.items())
    for step in found.steps:
        if step.stage == "prompts":
            counts = [f"{name} {step.metrics[name]:,}" for name in step.outputs]
            yield "prompts", f"{', '.join(counts)} ({step.id})"
    if base := found.base:
        yield "base model", f"{PurePath(base.path).name}, digest {cut(base.digest)}"
    yield from _constitutions(found, cut)


def exam_words(exam: LabelsExam | None) -> str:
    """ "passed: accuracy 100% (95-100) of 80 pairs, flips 1% (0-7), kappa 0.98", or that none was taken."""
    if exam is None:
        return "not taken"
    verdict = "passed" if exam.passed else f"failed ({'; '.join(exam.problems)})"
    accuracy = f"accuracy {_percent(exam.accuracy)} of {exam.pairs:,} pairs"
    return f"{verdict}: {accuracy}, flips {_percent(exam.flips)}, kappa {exam.kappa:.2f}"


def audit_words(audit: AuditSummary | None) -> str:
    """What people's audit of the labels came to."""
    if audit is None or audit.kappa is None:
        return "not taken: no person judged a label"
    if audit.problem:
        return f"failed: {audit.problem}"
    kappa = "{:.2f} ({:.2f}-{:.2f})".format(*audit.kappa.scaled(1))
    return f"people judged {audit.pairs:,} pairs, kappa with the judge {kappa}"


def _labels(record: LabelRecord, cut: Callable[[str], str]) -> Iterator[Fact]:
    trained, people = record.trained, record.people
    statuses = ", ".join(f"{n:,} {status}" for status, n in trained.statuses.items())
    yield (
        "labels",
        f"{trained.labels:,} of {record.pairs:,} pairs trained: {statuses} ({record.step})",
    )
    yield "soft and hard", f"{trained.soft:,} soft, {trained.hard:,} hard"
    yield "label set", cut(record.label_set)
    yield "preferences digest", cut(record.preferences)
    said = f"{people.confirmed:,} labels confirmed, {people.overridden:,} overridden"
    supplied = f", {people.supplied:,} given where the judge failed" if people.supplied else ""
    yield "people", said + supplied
    if record.judges is None:
        yield "judge", "unknown: the ledger is not here, or does not hold this label set"
    for judge in record.judges or ():
        yield "judge", f"{judge.model}, revision {cut(judge.revision)}, {judge.kind}"
        yield "judge's exam", exam_words(judge.exam)


def _reward_model(model: RewardModelRecord, cut: Callable[[str], str]) -> str:
    digests = ", ".join(f"{name} {cut(digest)}" for name, digest in model.models.items())
    said = f"{model.step}, digest of {digests}; {model.targets} targets"
    if model.human_share:
        said += f", {100 * model.human_share:.0f}% people's own preferences"
    accuracy = model.metrics.get("eval_accuracy")
    return said if accuracy is None else f"{said}; right on {100 * accuracy:.0f}% of held-out labels"


def _constitutions(found: Lineage, cut: Callable[[str], str]) -> Iterator[Fact]:
    """Every constitution that a step read, and which kind of its principles; usually one."""
    read = [step.constitution for step in found.steps if step.constitution]
    for ref, digest in dict.fromkeys((c.ref, c.digest) for c in read):
        same = [c for c in read if (c.ref, c.digest) == (ref, digest)]
        yield "constitution", ref
        yield "constitution digest", cut(digest)
        for kind, part in dict.fromkeys((c.principle_kind, c.kind_digest) for c in same):
            yield f"its {kind} principles", cut(part)


def _percent(share: Share) -> str:
    return "not measured" if share.value is None else "{:.0f}% ({:.0f}-{:.0f})".format(*share.scaled(100))
