"""A judge's exam on its own, outside of a run: who is examined, how and on what, and taking it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import judges.exam
from common.files import write_atomically
from constitution import Constitution, load
from flows.labelling.judge import closing, judge_at, label_settings, make_judge, priced_judge
from flows.labelling.ledger import ledger_of
from flows.report.exam import exam_page
from flows.report.render import html
from judges import LabelSettings, Ledger
from judges.exam import ExamReport, ExamSettings
from judges.known import KnownPair, read_known_pairs
from judges.settings import JudgeSettings

if TYPE_CHECKING:
    from flows.config import RunConfig
    from flows.config.forms_judging import ExamRequest

OUR_PAIRS = Path(judges.exam.__file__).with_name("pairs.json")
GENERATED = 200
"""Pairs of the microworld, where none are given."""


@dataclass(frozen=True, kw_only=True)
class Exam:
    """One exam of one judge under one constitution, asked as `settings` say.

    Without `files` there are `generated` pairs of the microworld
    where its templates are used, else our own. `limit` bounds the pairs; `page` is where the HTML report goes.
    """

    judge: JudgeSettings
    constitution: Constitution
    settings: LabelSettings
    thresholds: ExamSettings
    ledger: str
    files: tuple[Path, ...] = ()
    generated: int = GENERATED
    limit: int | None = None
    page: Path | None = None

    @classmethod
    def of_request(cls, request: ExamRequest) -> Self:
        """The exam that a form describes. Raises ConstitutionError."""
        judge = judge_at(
            request.judge,
            model=request.model,
            tokenizer=request.tokenizer,
            api_key_env=request.api_key_env,
            thinking_budget=request.thinking_budget,
        )
        return cls(
            judge=judge,
            constitution=load(request.constitution),
            settings=LabelSettings(templates=request.templates, **request.asking.model_dump()),
            thresholds=request.thresholds,
            ledger=request.ledger,
            files=tuple(map(Path, request.pairs)),
            limit=request.limit,
            page=None if request.page is None else Path(request.page),
        )

    @classmethod
    def of_run(
        cls,
        config: RunConfig,
        constitution: Constitution,
        *,
        files: tuple[Path, ...] = (),
        ledger: str | None = None,
        limit: int | None = None,
        page: Path | None = None,
    ) -> Self:
        """The exam of a run's own judge, asked as the run asks it; by default on its pairs and into its ledger."""
        return cls(
            judge=priced_judge(config),
            constitution=constitution,
            settings=label_settings(config),
            thresholds=ExamSettings(**config.exam.model_dump(include=set(ExamSettings.model_fields))),
            ledger=ledger or ledger_of(config),
            files=files or tuple(config.exam.pairs),
            generated=config.exam.generated,
            limit=limit,
            page=page,
        )


def take(
    exam: Exam,
    *,
    on_progress: Callable[[str], None] | None = None,
    on_skipped: Callable[[str], None] | None = None,
) -> ExamReport:
    """Examines the judge, keeps the report in the ledger, and writes its page.

    `on_skipped` hears of the rows that were left out, a line for each reason.
    Raises JudgeError or LedgerError in one line. A failed exam raises nothing.
    """
    known, skipped, source = exam_pairs(exam)
    if on_skipped is not None:
        for line in skipped:
            on_skipped(line)
    judged_by = make_judge(exam.judge, say=on_progress or (lambda line: None))
    with Ledger.open(exam.ledger) as ledger, closing(judged_by) as judge:
        report = judges.exam.examine(
            judge,
            exam.constitution,
            known,
            ledger=ledger,
            settings=exam.settings,
            exam=exam.thresholds,
            source=source,
            on_progress=on_progress,
        )
        judges.exam.save_exam(ledger, report)
    if exam.page is not None:
        write_atomically(exam.page, html(exam_page(report)))
    return report


def exam_pairs(exam: Exam) -> tuple[list[KnownPair], list[str], str]:
    """The pairs, lines on the rows that were left out, and where the pairs come from.

    A judge that reads the microworld's language only would be asked about a world that it has never seen.
    """
    asked = exam.settings
    if not exam.files and asked.templates == "microworld":
        from flows.labelling.known_pairs import generated_pairs

        n = exam.limit or exam.generated
        if pairs := generated_pairs(exam.constitution, n=n, seed=asked.seed, principles=asked.principles):
            return pairs, [], "generated pairs on held-out topics"
    known, skipped = read_all(list(exam.files) or [OUR_PAIRS], limit=exam.limit)
    return known, skipped, ", ".join(path.name for path in exam.files) or "our own pairs"


def read_all(paths: list[Path], *, limit: int | None = None) -> tuple[list[KnownPair], list[str]]:
    """The pairs of several files, the first `limit` of them, and a line for each reason to leave rows out.

    Files often number their pairs alike: an id that came before with another pair gets its file's name.
    """
    pairs: dict[str, KnownPair] = {}
    skipped: list[str] = []
    for path in paths:
        if limit is not None and len(pairs) >= limit:
            break
        found = read_known_pairs(path, limit=None if limit is None else limit - len(pairs))
        skipped += found.told()
        for known in found:
            before = pairs.get(known.pair.id)
            if before is not None and before.pair.digest != known.pair.digest:
                known = known.renamed(f"{path.name}:{known.pair.digest[:12]}:{known.pair.id}")
            pairs[known.pair.id] = known
    return list(pairs.values()), skipped
