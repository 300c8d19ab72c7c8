"""The flow `compare-models`: any models on any prompts, with the result as an artifact."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from common.text import clip, escape_markdown
from flows.comparison.compare import Comparison, compare
from flows.comparison.contestants import CompareRequest
from flows.comparison.report import about, artifact_page
from flows.orchestration.artifacts import PrefectReporter
from flows.orchestration.states import fails_in_one_line, gpu_slot
from flows.report.render import markdown


def _run_name() -> str:
    from prefect.runtime import flow_run

    request = flow_run.parameters["request"]
    models = request["models"] if isinstance(request, dict) else request.models
    return clip(f"compare {' : '.join(Path(model).name for model in models)}", 200)


@flow(name="compare-models", flow_run_name=_run_name)
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
