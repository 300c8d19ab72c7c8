"""What the Prefect UI shows of a run: progress while it runs, then results, label report and walk-through.

Artifacts are views: everything in them can be rebuilt from the run directory. Model text in them is escaped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, Settings

from common.sections import texts
from common.text import clip, escape_markdown, plain
from constitution.diff import diff
from constitution.views import diff_markdown
from flows.orchestration.server import newer_pages
from flows.report.data import ReportData
from flows.report.excerpts import constitution_before
from flows.report.run import examples_markdown, result_markdown, result_rows
from flows.runs.progress import label

if TYPE_CHECKING:
    from flows.pipeline.session import Session

PROGRESS = "progress"
"""One key for whatever is under way, so that the list of artifacts has one line for it."""

_UPDATE_SECONDS = 3.0


def artifacts_page() -> str:
    """Where the server of this environment shows artifacts."""
    return f"{PREFECT_API_URL.value() or ''}".removesuffix("/api") + f"{newer_pages()}/artifacts"


class PrefectReporter:
    """A progress artifact per running stage, and one log line when it ends.

    A server that is away for a moment costs the view its update, never the run.
    """

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._last = 0.0

    def started(self, stage: str) -> None:
        self._last, self._artifact = time.monotonic(), None
        with a_view_only():
            self._artifact = create_progress_artifact(  # type: ignore[assignment]
                progress=0.0, key=PROGRESS, description=escape_markdown(label(stage).strip())
            )

    def reused(self, stage: str, key: str) -> None:
        get_run_logger().info("%s: nothing changed, reused %s", stage, key[:12])

    def progress(self, stage: str, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if self._artifact is None or not total or now - self._last < _UPDATE_SECONDS:
            return
        with a_view_only():
            update_progress_artifact(
                artifact_id=self._artifact,
                progress=min(100.0, 100.0 * done / total),
                description=escape_markdown(f"{label(stage).strip()}: {done:,} of {total:,} {text}"),
            )
        self._last = time.monotonic()

    def warned(self, text: str) -> None:
        get_run_logger().warning(text)

    def finished(self, stage: str, seconds: float, text: str) -> None:
        if self._artifact is not None:
            with a_view_only():
                update_progress_artifact(artifact_id=self._artifact, progress=100.0)
            self._artifact = None
        get_run_logger().info("%s: %.1f s, %s", stage, seconds, text)


@contextmanager
def a_view_only() -> Iterator[None]:
    """What cannot be shown now is left out: no waiting for the server, no error."""
    context = get_settings_context()
    try:
        with SettingsContext(profile=context.profile, settings=_without_retries(context.settings)):
            yield
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().debug("progress not shown: %s", error)


_known: tuple[Settings, Settings] | None = None


def _without_retries(settings: Settings) -> Settings:
    """These settings, but clients try once. Kept, since making them takes longer than the calls they are for."""
    global _known
    if _known is None or _known[0] is not settings:
        _known = (settings, settings.copy_with_update(updates={PREFECT_CLIENT_MAX_RETRIES: 0}))
    return _known[1]


def publish_table(key: str, rows: Sequence[Mapping[str, Any]], *, description: str) -> None:
    """A table artifact, whose description is Markdown."""
    create_table_artifact(key=key, table=inert_cells(rows), description=description)


def inert_cells(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as both of Prefect's pages show them: the older one takes a cell for Markdown, the newer one for letters."""
    return [{k: plain(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]


def publish(session: Session, data: ReportData) -> None:
    """Publish what the finished stages of this attempt have to show."""
    mark = "" if session.constitution.published else " (unpublished)"
    title = escape_markdown(f"{session.config.name}, {clip(session.constitution.ref)}{mark}", limit=200)
    if data.models:
        heading, *rows = texts(result_rows(data))
        publish_table("results", [dict(zip(heading, row, strict=True)) for row in rows], description=title)
        create_markdown_artifact(key="report", markdown=result_markdown(data), description=title)
        create_markdown_artifact(key="walk-through", markdown=examples_markdown(data), description=title)
    if (before := constitution_before(session)) is not None:
        markdown = diff_markdown(diff(before, session.constitution))
        create_markdown_artifact(key="constitution-diff", markdown=markdown, description=title)
