"""The judge's exam under the run's constitution, before anything is labelled.

The pairs are the user's files, or in the microworld generated ones on held-out topics. Every judgement is in the
run's ledger, so an exam that failed is looked at again for nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_atomically, write_json
from flows.errors import FlowError
from flows.labelling.exam import read_all
from flows.labelling.judge import closing, judge_tuning, make_judge
from flows.labelling.provenance import exam_metrics
from flows.pipeline.forecast.judge import CHARACTERS_PER_TOKEN, SAMPLE
from flows.pipeline.forecast.needs import Forecaster, Needs
from flows.report.exam import exam_page
from flows.report.render import html
from flows.runs.digests import digest_file, digest_json, digest_path
from flows.stages.contract import Artifact, Inputs, Json, Result, Stage, StageInput
from flows.stages.labels import NOT_ASKED, asked_as, judge_settings, ledger_url
from judges import JudgeError, Ledger, TemplateSet
from judges.exam import ExamSettings, examine, require_exam, save_exam
from judges.exam.probes import HUGE_CHARACTERS, INJECTIONS, SYCOPHANCY
from judges.known import KnownPair

if TYPE_CHECKING:
    from flows.config import RunConfig

REPORT, PAGE = "exam.json", "exam.html"
# With fewer generated pairs no figure means anything; a file of the user's own may be as short as they like.
_FEWEST = 20


def run(work: StageInput) -> Result:
    """Examine the judge; write exam.json and exam.html, and keep the report in the ledger.

    Raises FlowError when the judge failed and the configuration requires that it pass.
    """
    assert work.constitution is not None
    known, source = _known(work)
    if not work.settings["files"] and len(known) < _FEWEST:
        reason = f"gold knows the answer to {len(known)} generated pairs only; name files in exam.pairs"
        return Result(outputs={}, metrics={"taken": False, "pairs": len(known), "reason": reason})
    settings = asked_as(work)
    judged_by = make_judge(
        work.tuning["judge"], logs=work.directory, say=lambda line: work.progress(0, 0, line)
    )
    with Ledger.open(ledger_url(work)) as ledger, closing(judged_by) as judge:
        report = examine(
            judge,
            work.constitution,
            known,
            ledger=ledger,
            settings=settings,
            exam=ExamSettings(**work.settings["exam"]),
            source=source,
            on_progress=lambda line: work.progress(0, 0, line),
        )
        save_exam(ledger, report)
        write_json(work.directory / REPORT, report.to_json())
        write_atomically(work.directory / PAGE, html(exam_page(report)))
        if work.settings["require"]:
            try:
                require_exam(ledger, judge.identity, work.constitution, settings)
            except JudgeError as error:
                raise FlowError(
                    f"{error}; see {work.directory / PAGE}; exam.require: false trains all the same"
                ) from error
    return Result(outputs={"report": REPORT, "page": PAGE}, metrics=exam_metrics(report))


def _known(work: StageInput) -> tuple[list[KnownPair], str]:
    if files := work.settings["files"]:
        paths = [Path(work.inputs[name]) for name in files]
        return read_all(paths)[0], ", ".join(path.name for path in paths)
    from flows.labelling.known_pairs import generated_pairs

    assert work.constitution is not None
    n, principles = work.settings["generated"], work.settings["asked"]["principles"]
    pairs = generated_pairs(work.constitution, n=n, seed=work.seed, principles=principles)
    return pairs, "generated pairs on held-out topics"


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    files = zip(_files(inputs.config), inputs.config.exam.pairs, strict=True)
    found = {name: Artifact(path=str(path), digest=digest_file(path)) for name, path in files}
    return {**found, **inputs.judge()}


def _files(config: RunConfig) -> list[str]:
    return [f"pairs_{number}" for number in range(1, len(config.exam.pairs) + 1)]


def _settings(config: RunConfig) -> Json:
    files = _files(config)
    settings: Json = {
        "exam": config.exam.model_dump(mode="json", include=set(ExamSettings.model_fields)),
        "require": config.exam.require,
        "files": files,
        "asked": config.labels.model_dump(mode="json", exclude=set(NOT_ASKED)),
        "templates": TemplateSet(config.labels.templates).digest,
        "judge": judge_settings(config),
    }
    return settings if files else {**settings, "generated": config.exam.generated, "source": _source()}


def _source() -> str:
    """Generated pairs are made by code: when the world or its oracle changes, the exam is another."""
    import microworld

    folder = Path(microworld.__file__).parent
    names = ("corpus", "lexicon", "oracle", "responses", "wordings", "world")
    return digest_json({name: digest_path(folder / f"{name}.py") for name in names})


def _tuning(config: RunConfig) -> Json:
    names = {"templates", "batch_pairs", "ledger"}
    return {"judge": judge_tuning(config), **config.labels.model_dump(include=names)}


def _forecast(ahead: Forecaster) -> Needs:
    """The known pairs, and at most `probe_pairs` of them again for every probe."""
    exam = ahead.config.exam
    known = [k.pair for k in read_all(list(exam.pairs))[0]] if exam.pairs else []
    pairs = len(known) or exam.generated
    probes = min(pairs, exam.probe_pairs) * (len(INJECTIONS) + len(SYCOPHANCY))
    sample = known[:SAMPLE] or ahead.inputs.made_up(answer=" ".join(["an answer of some length"] * 8))
    # The huge text goes to endpoints, whose context nobody knows here.
    huge = 0 if ahead.config.judge.kind == "in_process" else min(pairs, exam.probe_pairs)
    further = huge * HUGE_CHARACTERS / CHARACTERS_PER_TOKEN
    asked = ahead.judge.of_prompts(pairs + probes, sample, answer_tokens=0, further_tokens=further)
    disk = ahead.label_bytes(asked, pairs + probes, 2 * ahead.inputs.prompt_bytes)
    source = f"at most; {pairs} known pairs and {probes} probes"
    return replace(Needs(disk_bytes=disk).with_judge(asked), source=source)


def _summary(metrics: Any) -> str:
    if not metrics["taken"]:
        return f"not taken: {metrics['reason']}"
    if not metrics["passed"]:
        return f"FAILED, and not required: {'; '.join(metrics['problems'])}"
    return f"passed: accuracy {metrics['accuracy']:.3f} on {metrics['pairs']} pairs"


STAGE = Stage(
    name="judge_exam",
    title="The judge's exam",
    principle_kind="comparison",
    inputs=_inputs,
    settings=_settings,
    tuning=_tuning,
    run=run,
    forecast=_forecast,
    active=lambda config: bool(config.exam.pairs) or config.world is not None,
    summary=_summary,
)
