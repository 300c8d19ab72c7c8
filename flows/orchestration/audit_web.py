"""The audit as a page of our own beside Prefect's: one pair at a time, a verdict with one click or one key.

Each verdict is in the ledger before the next pair is shown, written as the form of `audit-labels` writes it. What this
process remembers is only which pairs it drew and what was skipped; started again, it draws from what is not judged.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.exceptions import HTTPException as HTTPError

from flows.errors import FlowError
from flows.orchestration.audit_view import STATIC, Answer, Where, beside, one_pair, renderer
from flows.orchestration.web_session import LoginNeeded, Sessions, check_origin
from judges import JudgeError, Ledger
from judges.audit import Given, agreement, record, sample, shown_order
from judges.audit.verdicts import Said, judged_by
from judges.errors import LedgerError
from judges.ledger.place import ledger_url
from judges.ledger.reading import find_label_set, labelled_one, labelled_pairs

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # With no-referrer a browser would not say from which page a form comes.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LONGEST_FORM = 64_000
_REMEMBERED = 200
_SAMPLED = 24


@dataclass(kw_only=True)
class Drawn:
    """Ids of the pairs that one reviewer is shown, in the order drawn, and what was said of them here."""

    pairs: list[str] = field(default_factory=list)
    said: dict[str, Said] = field(default_factory=dict)

    def draw(self, ledger: Ledger, label_set: str, where: Where) -> int:
        """So many more pairs that the reviewer has neither judged nor been shown; gives how many there were."""
        without = judged_by(ledger, where.reviewer or "") | set(self.pairs)
        drawn = sample(labelled_pairs(ledger, label_set), where.pairs, seed=where.seed, without=without)
        # A second click may have drawn the same at the same time.
        self.pairs = list(dict.fromkeys([*self.pairs, *(one.pair.id for one in drawn)]))
        return len(drawn)

    def left(self, ledger: Ledger, reviewer: str) -> list[str]:
        """Pairs still to be judged: neither here nor in another window or form of the reviewer."""
        done = judged_by(ledger, reviewer) | self.said.keys()
        return [pair for pair in self.pairs if pair not in done]

    def before(self, pair: str | None) -> str | None:
        """What was answered before this pair: the last answer, or the one before an answered one."""
        said = list(self.said)
        at = said.index(pair) if pair in self.said else len(said)
        return said[at - 1] if at else None


def under(*roots: Path) -> Callable[[str], str]:
    """From a run's folder or a ledger's file to the ledger's place, for those inside some folders.

    The function raises HTTPException: 403 for any other place, 404 where there is none.
    """

    def place(run: str) -> str:
        if "://" in run:
            raise HTTPException(403, "run: databases are not opened here; use the deployment audit-labels")
        try:
            file = Path(ledger_url(run)).resolve()
            allowed = any(file.is_relative_to(root.resolve()) for root in roots)
            found = file.is_file()
        except (OSError, RuntimeError):  # a name that is too long, links in a circle
            allowed, found = True, False
        if not allowed:
            raise HTTPException(
                403, f"run: {run!r} is not allowed: it lies outside {', '.join(map(str, roots))}"
            )
        if not found:
            raise HTTPException(404, f"run: no ledger at {run}")
        return str(file)

    return place


def audit_app(
    *,
    password: str | None = None,
    place: Callable[[str], str] | None = None,
    runs: Path = Path("runs"),
    artifacts: str = "/v2/artifacts",
) -> FastAPI:
    """The page as an application, to be mounted on Prefect's server or run alone.

    Args:
        password: What a person has to give once; None asks nobody.
        place: From what a person names to the ledger's place, see `under`; by default what lies in the working
            folder or in `runs`. A FlowError of it says what is not allowed.
        runs: The folder whose runs are offered.
        artifacts: Where Prefect shows artifacts, for the link after publishing.
    """
    app = FastAPI(openapi_url=None, default_response_class=HTMLResponse)
    sessions, audits = Sessions(password), dict[tuple[Any, ...], Drawn]()
    render, allowed = renderer(artifacts=artifacts), place or under(Path.cwd(), runs)

    async def form(request: Request) -> dict[str, str]:
        check_origin(request)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LONGEST_FORM:
                raise HTTPException(413, f"a form of more than {_LONGEST_FORM:,} bytes")
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))

    def written(request: Request, response: Response, said: Annotated[dict, Depends(form)]) -> dict[str, str]:
        """A form of this session; nothing in it is believed yet."""
        sessions.check(sessions.enter(request, response), said.get("csrf", ""))
        return {**said, "note": said.get("note", "").replace("\r\n", "\n").strip()}

    Form = Annotated[dict, Depends(written)]

    @contextmanager
    def opened(where: Where) -> Iterator[tuple[Ledger, str, Drawn]]:
        """The ledger, the label set, and what the reviewer is shown of it."""
        url = allowed(where.run)
        try:
            ledger = Ledger.open(url, create=False)
        except LedgerError as error:
            raise HTTPException(503, str(error)) from None
        with ledger:
            label_set = find_label_set(ledger, where.label_set)
            key = (ledger.url, label_set, where.reviewer, where.seed)
            if (drawn := audits.get(key)) is None:
                drawn = Drawn()
                drawn.draw(ledger, label_set, where)
                while len(audits) >= _REMEMBERED:
                    audits.pop(next(iter(audits)), None)
                audits[key] = drawn
            yield ledger, label_set, drawn

    def to(request: Request, query: str) -> RedirectResponse:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/{query}", 303)

    @app.get("/")
    def page(request: Request, response: Response, where: Annotated[Where, Query()]) -> str:
        csrf = sessions.token(sessions.enter(request, response))
        if where.reviewer is None:
            found = sorted(runs.glob("*/ledger.db"), key=lambda p: p.stat().st_mtime, reverse=True)
            return render("start", request, where=where, runs=[p.parent.as_posix() for p in found[:50]])
        with opened(where) as (ledger, label_set, drawn):
            here = where.model_copy(update={"label_set": label_set[:16]})
            left = drawn.left(ledger, where.reviewer)
            pair = where.pair or (left[0] if left and not where.end else None)
            total, done = len(drawn.pairs), len(drawn.pairs) - len(left)
            known = {"where": here, "csrf": csrf, "total": total, "done": done, "before": drawn.before(pair)}
            if pair is not None:
                number = 1 + (drawn.pairs.index(pair) if pair in drawn.pairs else done)
                return render(
                    "pair", request, **known, number=number, **one_pair(ledger, label_set, pair, here)
                )
            people = agreement(ledger, label_set, seed=where.seed)
            rows = beside(ledger, label_set, drawn.pairs, here)
            return render("end", request, **known, people=people, rows=rows)

    @app.post("/login")
    def login(request: Request, said: Annotated[dict, Depends(form)]) -> Response:
        query = said.get("query", "")
        answer = to(request, f"?{query}")
        try:
            sessions.enter(request, answer, said.get("password", ""))
        except LoginNeeded:
            problem = "This is not the password."
            return HTMLResponse(render("login", request, query=query, problem=problem), 401)
        return answer

    @app.post("/verdict")
    def verdict(request: Request, said: Form) -> Response:
        answer = Answer.model_validate(said)
        with opened(answer) as (ledger, label_set, drawn):
            labelled = labelled_one(ledger, label_set, answer.label)
            shown = shown_order(labelled.pair.id, answer.reviewer, seed=answer.seed)
            given = Given(labelled=labelled, shown=shown, said=answer.said, note=answer.note)
            try:
                record(ledger, [given], reviewer=answer.reviewer)
            except LedgerError as error:
                raise HTTPException(503, str(error)) from None
            drawn.said[labelled.pair.id] = answer.said
        return to(request, answer.query())

    @app.post("/more")
    def draw(request: Request, said: Form) -> Response:
        where = Where.model_validate(said)
        with opened(where) as (ledger, label_set, drawn):
            more = drawn.draw(ledger, label_set, where)
        return to(request, where.query() if more else where.query(end="all"))

    @app.post("/publish")
    def publish(request: Request, said: Form) -> Response:
        where = Where.model_validate(said)
        with opened(where) as (ledger, label_set, _):
            publish_artifacts(ledger, label_set, title=Path(where.run).name, seed=where.seed)
        return to(request, where.query(end="published"))

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    def one_line(request: Request, error: Exception) -> Response:
        """A mistake in one line, with its status."""
        status, text = 422, " ".join(str(error).split())
        if isinstance(error, HTTPError):
            status, text = error.status_code, str(error.detail)
        elif isinstance(error, ValidationError | RequestValidationError):
            first = error.errors()[0]
            text = f"{first['loc'][-1]}: {first['msg'].removeprefix('Value error, ')}"
        elif isinstance(error, LedgerError | FlowError):
            status = 404 if isinstance(error, LedgerError) else 403
        return HTMLResponse(render("line", request, text=text), status)

    for kind in (HTTPError, RequestValidationError, ValidationError, JudgeError, FlowError):
        app.add_exception_handler(kind, one_line)

    @app.exception_handler(LoginNeeded)
    def ask(request: Request, _: Exception) -> Response:
        query = request.url.query if request.method == "GET" else ""
        return HTMLResponse(render("login", request, query=query, problem=""), 401)

    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def publish_artifacts(ledger: Ledger, label_set: str, *, title: str, seed: int) -> None:
    """The artifacts that `audit-labels` leaves, through the client: there is no run here that they could belong to.

    Raises HTTPException (503) where no Prefect server takes them.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL

    from flows.orchestration.audit_artifacts import audit_views

    if not PREFECT_API_URL.value():
        raise HTTPException(503, "PREFECT_API_URL names no server that could show artifacts")
    views = audit_views(ledger, label_set, title=title, sampled=_SAMPLED, seed=seed)
    try:
        with get_client(sync_client=True) as client:
            for key, data in views.items():
                client.create_artifact(ArtifactCreate(type="markdown", key=key, data=data, description=title))
    except (httpx.HTTPError, PrefectException) as error:
        raise HTTPException(
            503, f"the Prefect server took no artifact: {' '.join(str(error).split())}"
        ) from None
