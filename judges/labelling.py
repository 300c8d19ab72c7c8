"""Labelling pairs: draw, ask only what the ledger lacks, commit every batch, resume anywhere.

While the judge works on one batch, the next is prepared; when the process dies, at most the batch in flight
is asked again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from constitution import Constitution
from judges.asking.ask import ask_judges
from judges.asking.questions import Purpose, Question, Questionnaire, Vote
from judges.errors import JudgeError, JudgeUnavailable
from judges.label_report import LabelReport
from judges.ledger import Batch, Judgement, LabelRow, Ledger
from judges.records import FAILURES, TRANSIENT, Judge, Label, Pair, Ranking, Reading, Status
from judges.reuse import look_up
from judges.settings import LabelSettings

# A judge that fails two whole batches in a row is down, not unlucky: stop, and let the user start again.
DEAD_AFTER_BATCHES = 2
# How long to wait before looking again whether another worker has finished what it claimed.
POLL_S = 0.2


def label_pairs(
    pairs: Iterable[Pair | Ranking],
    *,
    constitution: Constitution,
    judge: Judge | Sequence[Judge],
    ledger: Ledger,
    settings: LabelSettings,
    on_progress: Callable[[LabelReport], None] | None = None,
    purpose: Purpose = "labels",
    drawn_by: Mapping[str, str] | None = None,
) -> LabelReport:
    """Labels `pairs`, both orders each, and returns what was done; the labels themselves are in the ledger.

    `pairs` may be a generator; one batch is held at a time. A ranking among them yields a label for each of its
    pairs, `<id>:ab` and so on. Several judges vote, and their votes are averaged. `on_progress` is called after
    every commit with the report so far. Labels made for an exam belong to a label set of their own; `drawn_by`
    maps a pair's id to the id that draws its principles, where that is another. Raises JudgeError when a pair id
    comes twice with different content, or when the judge fails whole batches in a row; everything committed before
    stays.
    """
    judges = list(judge) if isinstance(judge, Sequence) else [judge]
    if not judges:
        raise JudgeError("no judge: give at least one")
    identities = [ledger.known_as(j.identity) for j in judges]
    questionnaire = Questionnaire(constitution, identities, settings, purpose=purpose, drawn_by=drawn_by)
    run = _Run(questionnaire, judges, ledger, on_progress)
    questionnaire.register(ledger)
    with ledger.renewing(), ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge") as executor:
        run.executor = executor
        run.main_pass(_batched(_distinct(pairs), settings.batch_pairs))
        run.wait_for_others(settings.batch_pairs)
    return run.report


@dataclass(kw_only=True)
class _Work:
    """One batch on its way: its questions, what is known of them, and what the judge is asked now.

    `answered` are votes among those asked that a probe has answered, `probes` its answers that nothing else keeps.
    """

    questions: list[Question]
    deferred: set[Question]
    readings: dict[str, Reading]
    stored_as: dict[str, str]
    asked: list[tuple[Question, Vote]]
    answered: dict[str, Reading]
    probes: list[Reading]
    labels: dict[str, Label]
    members: dict[str, str]

    @property
    def claimed(self) -> list[str]:
        """The keys that this process holds for the batch."""
        return [vote.key for _, vote in self.asked]


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A committed batch: its labels, what the judge answered, and how many labels were made rather than found."""

    work: _Work
    labels: list[Label]
    answers: list[Reading]
    made: int


class _Run:
    """The state of one labelling run."""

    executor: ThreadPoolExecutor

    def __init__(
        self,
        questionnaire: Questionnaire,
        judges: Sequence[Judge],
        ledger: Ledger,
        on_progress: Callable[[LabelReport], None] | None,
    ) -> None:
        self._questionnaire = questionnaire
        self._judges = judges
        self._ledger = ledger
        self._on_progress = on_progress
        self._deferred: list[Question] = []
        self._dead_batches = 0
        self._still: dict[str, bool] = {}
        self._probed: dict[str, Reading] = {}
        self._started = time.perf_counter()
        self._statuses: Counter[Status] = Counter()
        self._by_principle: dict[str, Counter[Status]] = {}
        self.report = LabelReport(label_set=questionnaire.label_set)

    def main_pass(self, batches: Iterator[list[Pair | Ranking]]) -> None:
        """Every pair once; what another worker holds is put off."""
        self._through([self._questionnaire.question(item) for item in batch] for batch in batches)

    def wait_for_others(self, batch_pairs: int) -> None:
        """What was put off: taken from the ledger when it is there, asked here when its worker gave up."""
        while self._deferred:
            time.sleep(POLL_S)
            waiting, self._deferred = self._deferred, []
            self._through(_batched(iter(waiting), batch_pairs))

    def _through(self, batches: Iterable[list[Question]]) -> None:
        """Prepares each batch while the judge answers the one before, which is committed in the judge's thread.

        So neither an interrupt nor a bad line among the pairs costs what the judge was answering: both strike
        this thread, and the executor finishes its batch before it ends.
        """
        flying: Future[_Done] | None = None
        prepared: _Work | None = None
        try:
            for questions in batches:
                prepared = self._prepare(questions)
                if flying is not None:
                    self._settle(flying.result())
                flying, prepared = self.executor.submit(self._ask_and_commit, prepared), None
            if flying is not None:
                self._settle(flying.result())
        finally:
            if prepared is not None:
                self._ledger.release(prepared.claimed)

    def _prepare(self, questions: list[Question]) -> _Work:
        labels = self._ledger.labels([d for q in questions for d in q.label_digests])
        pair_ids = [pair.id for q in questions for pair in q.item.pairs]
        members = self._ledger.members(self._questionnaire.label_set, pair_ids)
        # A failed label is added up anew: what caused the failure may be another by now.
        final = {d for d, label in labels.items() if label.status not in FAILURES}
        open_questions = [q for q in questions if not final.issuperset(q.label_digests)]
        votes = {v.key: (q, v) for q in open_questions for v in q.votes}
        known = look_up(self._ledger, [vote for _, vote in votes.values()])
        still = {k: r for k, r in known.caused.items() if self._is_still_so(r, votes[k][1])}
        readings = known.readings | still
        claimed = self._ledger.claim([k for k in votes if k not in readings])
        probed, self._probed = self._probed, {}
        missing = [k for k in votes if k not in readings and k not in claimed]
        if missing:  # another worker may have just written some
            readings |= self._ledger.readings(missing)
        elsewhere = {k for k in missing if k not in readings}
        deferred = {q for q in open_questions if any(v.key in elsewhere for v in q.votes)}
        return _Work(
            questions=[q for q in questions if q not in deferred],
            deferred=deferred,
            readings=readings,
            stored_as=known.stored_as,
            asked=[votes[k] for k in votes if k in claimed],
            answered={k: reading for k, reading in probed.items() if k in claimed},
            probes=[reading for k, reading in probed.items() if k not in claimed],
            labels=labels,
            members=members,
        )

    def _ask_and_commit(self, work: _Work) -> _Done:
        """Asks the judges and writes everything of the batch in one transaction."""
        try:
            votes = [vote for _, vote in work.asked if vote.key not in work.answered]
            found = dict(zip((v.key for v in votes), self._ask(votes) if votes else [], strict=True))
        except BaseException:
            self._ledger.release(work.claimed)
            raise
        answers = [(work.answered | found)[vote.key] for _, vote in work.asked]
        now = time.time()
        judgements: list[Judgement] = []
        failures: list[Judgement] = []
        readings = dict(work.readings)
        for (question, vote), reading in zip(work.asked, answers, strict=True):
            row = self._questionnaire.judgement(question, vote, reading, now)
            (failures if reading.may_change else judgements).append(row)
            readings[vote.key] = reading
        rows: list[LabelRow] = []
        labels: list[Label] = []
        items: dict[str, Pair | Ranking] = {q.item.digest: q.item for q, _ in work.asked}
        members: dict[str, str] = {}
        for question in work.questions:
            known = [work.labels.get(d) for d in question.label_digests]
            mine = [label for label in known if label is not None and label.status not in FAILURES]
            if len(mine) < len(known):
                mine = self._questionnaire.labels(question, readings, work.stored_as)
                if mine != known:
                    rows += self._questionnaire.label_rows(question, mine, now)
                    items |= {pair.digest: pair for pair in question.item.pairs}
            labels += mine
            members |= {label.pair_id: label.digest for label in mine}
        batch = Batch(
            label_set=self._questionnaire.label_set,
            judgements=judgements,
            failures=failures,
            labels=rows,
            items=list(items.values()),
            members={i: d for i, d in members.items() if work.members.get(i) != d},
            released=work.claimed,
        )
        if rows or work.asked or batch.members:
            self._ledger.add(batch)
        return _Done(work=work, labels=labels, answers=answers, made=len(rows))

    def _is_still_so(self, failure: Reading, vote: Vote) -> bool:
        """Whether the way of serving still causes this failure: asked once a run for each cause, by one call, whose
        answer is kept where it does not."""
        assert failure.cause is not None
        if failure.cause not in self._still:
            now = self._probed[vote.key] = self._ask([vote])[0]
            self._still[failure.cause] = now.cause == failure.cause or now.status in TRANSIENT
        return self._still[failure.cause]

    def _ask(self, votes: Sequence[Vote]) -> list[Reading]:
        return ask_judges(self._judges, [v.judge for v in votes], [v.call for v in votes])

    def _settle(self, done: _Done) -> None:
        """Counts a committed batch."""
        work, labels, answers = done.work, done.labels, done.answers
        self._deferred.extend(work.deferred)
        made = [*answers, *work.probes]
        for label in labels:
            self._statuses[label.status] += 1
            for principle in label.principles:
                self._by_principle.setdefault(principle, Counter())[label.status] += 1
        report = self.report
        self.report = replace(
            report,
            pairs=report.pairs + len(labels),
            statuses=dict(self._statuses),
            by_principle={p: dict(c) for p, c in self._by_principle.items()},
            asked=report.asked + len(made),
            known=report.known + len(work.readings),
            reused=report.reused + len(labels) - done.made,
            prompt_tokens=report.prompt_tokens + sum(r.prompt_tokens for r in made),
            completion_tokens=report.completion_tokens + sum(r.completion_tokens for r in made),
            cost=report.cost + sum(r.cost or 0.0 for r in made),
            seconds=time.perf_counter() - self._started,
        )
        if self._on_progress is not None:
            self._on_progress(self.report)
        self._stop_if_dead(answers)

    def _stop_if_dead(self, answers: Sequence[Reading]) -> None:
        if not answers:
            return
        failed = all(r.status in TRANSIENT for r in answers)
        self._dead_batches = self._dead_batches + 1 if failed else 0
        if self._dead_batches >= DEAD_AFTER_BATCHES:
            raise JudgeUnavailable(
                f"the judge failed {DEAD_AFTER_BATCHES} batches in a row, last: {answers[-1].detail}; "
                "all earlier judgements are kept, start again to go on"
            )


def _distinct(pairs: Iterable[Pair | Ranking]) -> Iterator[Pair | Ranking]:
    """The pairs, each id once. Raises JudgeError when an id comes back with other content."""
    seen: dict[str, str] = {}
    for pair in pairs:
        before = seen.get(pair.id)
        if before is None:
            seen[pair.id] = pair.digest[:16]
            yield pair
        elif before != pair.digest[:16]:
            raise JudgeError(f"pair id {pair.id!r} occurs twice with different content")


def _batched(items: Iterator, size: int) -> Iterator[list]:
    while batch := list(islice(items, size)):
        yield batch
