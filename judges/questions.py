"""From a pair to its questions: the principles it draws, the calls, their keys, and the label they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from constitution import ComparisonPrinciple, Constitution, draw_comparison
from constitution.model import vars_of
from judges.combine import combine
from judges.digests import digest
from judges.ledger import Judgement, LabelRow, Ledger
from judges.ledger.rows import judge_digest
from judges.records import ORDERS, Call, JudgeIdentity, Label, Order, Pair, Reading
from judges.settings import LabelSettings
from judges.templates import TemplateSet

READOUT = "option-logprobs"


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One call of a question: one principle, one order. `key` is its key in the ledger."""

    principle: ComparisonPrinciple
    order: Order
    call: Call
    key: str


@dataclass(frozen=True, eq=False)
class Question:
    """All that is asked about one pair. Prompts are rendered only when `votes` is looked at."""

    pair: Pair
    principles: tuple[ComparisonPrinciple, ...]
    label_digest: str
    questionnaire: Questionnaire

    @cached_property
    def votes(self) -> tuple[Vote, ...]:
        """Principle by principle, the two orders next to each other (they share their prompts' beginnings)."""
        return tuple(
            self.questionnaire.vote(self.pair, p, order) for p in self.principles for order in ORDERS
        )


class Questionnaire:
    """One constitution, one judge, one way of asking: makes questions out of pairs and labels out of readings."""

    def __init__(self, constitution: Constitution, identity: JudgeIdentity, settings: LabelSettings) -> None:
        """Raises JudgeError for an unknown template set."""
        self._constitution = constitution
        self._identity = identity
        self._settings = settings
        self._templates = TemplateSet(settings.templates)
        self._method_content = {
            "readout": READOUT,
            "templates": self._templates.sources,
            "exemplars": [vars_of(e) for e in constitution.comparison_exemplars],
        }
        self._method = digest(self._method_content)
        self._judge = judge_digest(identity)
        self.label_set = digest(
            {
                "constitution": constitution.comparison_digest,
                "judge": identity.key(),
                "method": self._method,
                "margins": settings.key(),
                "seed": settings.seed,
                "principles": settings.principles,
            }
        )

    def register(self, ledger: Ledger) -> None:
        """Writes down everything that the judgements to come will refer to."""
        c = self._constitution
        content = {
            "constitution": {
                "ref": c.ref,
                "name": c.name,
                "version": c.version,
                "published": c.published,
                "comparison_digest": c.comparison_digest,
            },
            "judge": self._judge,
            "method": self._method,
            "settings": self._settings.model_dump(mode="json"),
        }
        ledger.register(
            judge=self._identity,
            methods={self._method: self._method_content},
            principles={p.digest: p.question for p in c.comparison},
            label_set=(self.label_set, content),
        )

    def question(self, pair: Pair) -> Question:
        """The question about `pair`. Its label digest needs no prompt, so a resume renders nothing."""
        s = self._settings
        principles = draw_comparison(self._constitution, pair.id, seed=s.seed, n=s.principles)
        label_digest = digest(
            {
                "pair_id": pair.id,
                "item": pair.digest,
                "principles": [[p.id, p.digest] for p in principles],
                "judge": self._identity.key(),
                "method": self._method,
                "margins": s.key(),
            }
        )
        return Question(pair, principles, label_digest, self)

    def vote(self, pair: Pair, principle: ComparisonPrinciple, order: Order) -> Vote:
        """One call, with the key under which its reading is stored: a digest of all that determines it."""
        exemplars = self._constitution.comparison_exemplars
        call = self._templates.pairwise(pair, principle.question, order, exemplars)
        key = digest(
            {
                "item": pair.digest,
                "principle": [principle.id, principle.digest],
                "order": order,
                "prompt": call.digest,
                "readout": READOUT,
                "judge": self._identity.key(),
            }
        )
        return Vote(principle=principle, order=order, call=call, key=key)

    def judgement(self, question: Question, vote: Vote, reading: Reading, now: float) -> Judgement:
        """The row of one call."""
        return Judgement(
            key=vote.key,
            item=question.pair.digest,
            principle_id=vote.principle.id,
            principle=vote.principle.digest,
            shown=vote.order,
            prompt=vote.call.digest,
            judge=self._judge,
            method=self._method,
            reading=reading,
            created_at=now,
        )

    def label(self, question: Question, readings: Mapping[str, Reading]) -> Label:
        """What the readings of a question add up to."""
        answers = [readings[vote.key] for vote in question.votes]
        votes = list(zip(answers[::2], answers[1::2], strict=True))
        total = combine(votes, self._settings.margins)
        return Label(
            pair_id=question.pair.id,
            p=total.p,
            status=total.status,
            principles=tuple(p.id for p in question.principles),
            judgements=tuple(vote.key for vote in question.votes),
            digest=question.label_digest,
            p_ab=total.p_ab,
            p_ba=total.p_ba,
            spread=total.spread,
            detail=total.detail,
        )

    def label_row(self, question: Question, label: Label, now: float) -> LabelRow:
        """The label's row."""
        return LabelRow(
            label=label,
            item=question.pair.digest,
            principle_digests=tuple(p.digest for p in question.principles),
            label_set=self.label_set,
            created_at=now,
        )
