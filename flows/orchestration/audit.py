"""The flow `audit-labels`: a person judges pairs page by page in the Resume form.

Each page is written to the ledger when it comes in, so stopping, a timeout or a kill loses only the page that is
open. Nothing here holds a GPU, and the judge is not asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput, keyset_from_base_key, read_flow_run_input
from pydantic import ValidationError

from common.text import clip, escape_markdown
from flows.config.forms_judging import AuditRequest
from flows.orchestration.audit_artifacts import publish_audit
from flows.orchestration.audit_page import Page, given, next_pages
from flows.orchestration.audit_view import link
from flows.orchestration.states import fails_in_one_line
from flows.report.audit_pairs import page_markdown
from judges import Ledger
from judges.audit import agreement, record
from judges.ledger.place import ledger_url
from judges.ledger.reading import find_label_set

_POLL_SECONDS = 2
_FORM_LINES = 12


def _run_name() -> str:
    from prefect.runtime import flow_run

    request = flow_run.parameters["request"]
    asked = request if isinstance(request, dict) else request.model_dump()
    return f"audit-labels of {Path(asked['run']).name} by {clip(asked['reviewer']) or 'nobody'}"


@flow(name="audit-labels", flow_run_name=_run_name)
@fails_in_one_line
def audit_labels(request: AuditRequest) -> str:
    """Judge pairs in the Resume form: the doubtful ones first, as many pages as wanted.

    Returns what people and the judge agree on so far, in one line.

    Args:
        request: Who looks at which labels.
    """
    logger = get_run_logger()
    with Ledger.open(ledger_url(request.run), create=False) as ledger:
        label_set = find_label_set(ledger, request.label_set)
        pages = next_pages(
            ledger,
            label_set,
            reviewer=request.reviewer,
            seed=request.seed,
            per_page=request.per_page,
            pages=request.pages,
        )
        kept = 0
        for page in pages:
            answers = _asked(page, request, link(ledger, "with one click a pair"))
            if answers is None:
                logger.warning("page %d was not answered in %d s", page.number, request.patience_s)
                break
            new = record(ledger, given(page, answers), reviewer=request.reviewer)
            kept += new
            logger.info("page %d of %d: %d verdicts kept", page.number, len(pages), new)
            if answers["stop"]:
                break
        name = Path(request.run).name
        publish_audit(ledger, label_set, title=name, sampled=24, seed=request.seed)
        people = agreement(ledger, label_set)
    if people.kappa is None:
        line = f"{kept} verdicts kept"
    else:
        k = people.kappa
        with_judge = f"kappa {k.value:.2f} [{k.low:.2f}, {k.high:.2f}] with the judge"
        line = f"{kept} verdicts kept; on {people.pairs} pairs {with_judge}"
    logger.info("%s", line)
    return line


def _asked(page: Page, request: AuditRequest, faster: str = "") -> dict[str, Any] | None:
    """What the form brought back: verdicts and notes by number, and whether to stop. None after a timeout.

    `faster` leads to where the same is done sooner. An answer that the form should not have let through is asked for
    again, with what of it was in order filled in.
    """
    faster = f"\n\nOr judge these labels {faster}." if faster else ""
    heading = f"# Page {page.number} of {page.of}, {escape_markdown(request.reviewer)}{faster}"
    create_markdown_artifact(
        key="audit-page",
        markdown=page_markdown(page.pairs, heading=heading),
        description=escape_markdown(_run_name(), limit=200),
    )
    filled: dict[str, Any] = {}
    problem, attempt = "", 0
    while True:
        attempt += 1
        intro = f"{problem}Page {page.number} of {page.of}. The pairs in full are in the artifact audit-page.{faster}"
        form = page.form(RunInput, filled).with_initial_data(
            description=page_markdown(page.pairs, heading=intro, lines=_FORM_LINES)
        )
        key = f"page-{page.number}-{attempt}"
        try:
            answer = pause_flow_run(
                wait_for_input=form, timeout=request.patience_s, poll_interval=_POLL_SECONDS, key=key
            )
        except FlowPauseTimeout:
            _run_on()
            return None
        except ValidationError as error:
            bad = {str(e["loc"][0]) for e in error.errors() if e["loc"]}
            said: Any = read_flow_run_input(keyset_from_base_key(f"paused-{key}")["response"]) or {}
            filled = {name: said[name] for name in form.model_fields if name in said and name not in bad}
            problem = f"**Please look again at {', '.join(sorted(map(page.title, bad)))}.** "
            continue
        return answer.model_dump()


def _run_on() -> None:
    """Out of a pause that nobody ended. The server would call the run Failed; it ends with what it was given."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run
    from prefect.states import Running

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run.id), Running(), force=True)
