"""The flow `judge-exam`: any judge, under any constitution, on any file of known pairs."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from common.text import clip, escape_markdown
from flows.config.forms_judging import ExamRequest
from flows.errors import FlowError
from flows.labelling.exam import Exam, take
from flows.orchestration.states import fails_in_one_line, gpu_slot
from flows.report.exam import exam_page
from flows.report.render import markdown
from judges.exam import ExamReport


def _run_name() -> str:
    from prefect.runtime import flow_run

    request = flow_run.parameters["request"]
    asked = request if isinstance(request, dict) else request.model_dump()
    return f"judge-exam of {Path(asked['judge']).name} under {clip(asked['constitution'])}"


@flow(name="judge-exam", flow_run_name=_run_name)
@fails_in_one_line
def judge_exam(request: ExamRequest) -> str:
    """Examine a judge before it is trusted. The run fails when the judge does.

    Returns the result in one line.

    Args:
        request: Who is examined, and on what.
    """
    logger = get_run_logger()
    with gpu_slot():
        report = take(Exam.of_request(request), on_skipped=logger.warning)
    publish_exam(report)
    if request.page:
        logger.info("report: %s", Path(request.page).resolve())
    line = f"{report.judge.model} under {report.constitution}"
    if not report.passed:
        raise FlowError(f"judge {line} failed its exam: {'; '.join(report.problems)}")
    logger.info("%s passed: accuracy %.3f on %d pairs", line, report.accuracy.value or 0.0, report.pairs)
    return f"{line} passed"


def publish_exam(report: ExamReport) -> None:
    """The `judge-exam` artifact: figures, checks and plots."""
    title = f"{report.judge.model} under {report.constitution}"
    create_markdown_artifact(
        key="judge-exam", markdown=markdown(exam_page(report)), description=escape_markdown(title, limit=200)
    )
