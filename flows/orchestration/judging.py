"""The flows that ask a judge outside of a run: `compare-models`, and `judge-exam` on pairs with known answers."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from common.text import clip, escape_markdown
from flows.comparison.compare import Comparison, compare
from flows.comparison.report import about, artifact_page
from flows.config.forms_judging import CompareRequest, ExamRequest
from flows.errors import FlowError
from flows.labelling.exam import Exam, take
from flows.orchestration.artifacts import PrefectReporter
from flows.orchestration.states import fails_in_one_line, gpu_slot
from flows.report.exam import exam_page
from flows.report.render import markdown
from judges.exam import ExamReport


def _comparison_name() -> str:
    from prefect.runtime import flow_run

    request = flow_run.parameters["request"]
    models = request["models"] if isinstance(request, dict) else request.models
    return clip(f"compare {' : '.join(Path(model).name for model in models)}", 200)


@flow(name="compare-models", flow_run_name=_comparison_name)
@fails_in_one_line
def compare_models(request: CompareRequest) -> str:
    """Compare models head to head; judgements and answers that are there are not made again.

    Returns the comparison's folder.

    Args:
        request: Which models, on which prompts, judged by whom.
    """
    reporter = PrefectReporter()
    reporter.started("comparison")
    began = time.perf_counter()
    with gpu_slot():
        found = compare(request, lambda done, total, text: reporter.progress("comparison", done, total, text))
    asked = f"{found.figures.asked:,} judgements asked"
    reporter.finished("comparison", time.perf_counter() - began, asked)
    publish_comparison(found)
    get_run_logger().info("comparison: %s", found.directory.resolve())
    return str(found.directory)


def publish_comparison(found: Comparison) -> None:
    """The `model-comparison` artifact: findings and tables."""
    title = f"{' : '.join(found.figures.names)}; {about(found.figures)}"
    create_markdown_artifact(
        key="model-comparison",
        markdown=markdown(artifact_page(found.figures)),
        description=escape_markdown(title, limit=200),
    )


def _exam_name() -> str:
    from prefect.runtime import flow_run

    request = flow_run.parameters["request"]
    asked = request if isinstance(request, dict) else request.model_dump()
    return f"judge-exam of {Path(asked['judge']).name} under {clip(asked['constitution'])}"


@flow(name="judge-exam", flow_run_name=_exam_name)
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
