"""From a pair to its questions: the principles it draws, the calls, their keys, and the labels they add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

from common.digest import digest
from constitution import ComparisonPrinciple, Constitution, draw_comparison
from constitution.model import vars_of
from judges.asking.combine import combine
from judges.asking.methods import Method
from judges.errors import JudgeError
from judges.ledger import Judgement, LabelRow, Ledger
from judges.ledger.rows import judge_digest, version_digest
from judges.records import Call, JudgeIdentity, Label, Order, Pair, Ranking, Reading, orders
from judges.settings import LabelSettings

Purpose = Literal["labels", "exam"]


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One judgement to be made: judge (by number), principle, order, rationale. `key` is its key in the ledger.

    `former_key` is the key that ledgers before schema 0006 gave it, where that is another.
    """

    judge: int
    principle: ComparisonPrinciple
    order: Order
    sample: int
    call: Call
    key: str
    former_key: str | None = None


@dataclass(frozen=True, eq=False)
class Question:
    """All that is asked about one pair or ranking. Prompts are rendered only when `votes` is looked at."""

    item: Pair | Ranking
    principles: tuple[ComparisonPrinciple, ...]
    label_digests: tuple[str, ...]
    questionnaire: Questionnaire

    @cached_property
    def votes(self) -> tuple[Vote, ...]:
        """All orders of one principle, judge and rationale next to each other: their prompts begin alike."""
        return self.questionnaire.votes(self.item, self.principles)


class Questionnaire:
    """One constitution, its judges, one way of asking: makes questions out of pairs and labels out of readings."""

    def __init__(
        self,
        constitution: Constitution,
        identities: Sequence[JudgeIdentity],
        settings: LabelSettings,
        *,
        purpose: Purpose = "labels",
        drawn_by: Mapping[str, str] | None = None,
    ) -> None:
        """`drawn_by` maps a pair's id to the id that draws its principles, where that is another.

        Raises JudgeError for an unknown template set, or when two judges are the same.
        """
        self._constitution = constitution
        # An exam's pairs are no part of a run's labels: they have a label set of their own.
        self._purpose = {} if purpose == "labels" else {"purpose": purpose}
        self._drawn_by = drawn_by or {}
        self._identities = tuple(identities)
        self._settings = settings
        self.method = Method.of(settings, [vars_of(e) for e in constitution.comparison_exemplars])
        self._judges = [judge_digest(identity) for identity in identities]
        keys = [identity.key() for identity in identities]
        if any(key in keys[:n] for n, key in enumerate(keys)):
            raise JudgeError("two judges are the same model and revision: an average needs different ones")
        self._judge_keys = keys[0] if len(keys) == 1 else keys
        self.label_set = digest(
            {
                "constitution": constitution.comparison_digest,
                "judge": self._judge_keys,
                "method": self.method.digest,
                "margins": settings.key(),
                "seed": settings.seed,
                "principles": settings.principles,
                **self._purpose,
            }
        )

    @cached_property
    def content(self) -> dict[str, Any]:
        """What the labels are made with, as the ledger keeps it; more than what determines them."""
        c = self._constitution
        return {
            "constitution": {
                "ref": c.ref,
                "name": c.name,
                "version": c.version,
                "published": c.published,
                "comparison_digest": c.comparison_digest,
            },
            "judges": self._judges,
            "method": self.method.digest,
            "settings": self._settings.model_dump(mode="json"),
            **self._purpose,
        }

    @cached_property
    def version(self) -> str:
        """The digest under which the ledger keeps `content`."""
        return version_digest(self.label_set, self.content)

    def register(self, ledger: Ledger) -> None:
        """Writes down everything that the judgements to come will refer to."""
        ledger.register(
            judges=self._identities,
            methods={self.method.digest: self.method.content},
            principles={p.digest: p.question for p in self._constitution.comparison},
            label_set=(self.label_set, self.content),
        )

    def question(self, item: Pair | Ranking) -> Question:
        """The question about `item`. Its label digests need no prompt, so a resume renders nothing."""
        s = self._settings
        drawing = self._drawn_by.get(item.id, item.id)
        principles = draw_comparison(self._constitution, drawing, seed=s.seed, n=s.principles)
        common = {
            "item": item.digest,
            "principles": [[p.id, p.digest] for p in principles],
            "judge": self._judge_keys,
            "method": self.method.digest,
            "margins": s.key(),
        }
        digests = tuple(digest({"pair_id": pair.id, **common}) for pair in item.pairs)
        return Question(item, principles, digests, self)

    def votes(self, item: Pair | Ranking, principles: Sequence[ComparisonPrinciple]) -> tuple[Vote, ...]:
        """Every judgement that a label of `item` needs, in the order in which `labels` takes them up."""
        found = []
        shown = orders(len(item.responses))
        for judge, principle, sample in product(
            range(len(self._identities)), principles, range(self.method.samples)
        ):
            for order in shown:
                call = self.method.call(item, principle.question, order, sample)
                asked = {
                    "item": item.digest,
                    "principle": [principle.id, principle.digest],
                    "order": order,
                    "prompt": call.digest,
                    "readout": self.method.readout,
                }
                identity = self._identities[judge]
                formerly = identity.serving and not identity.thoughts  # a setting that those did not know
                former = digest({**asked, "judge": identity.former_key()}) if formerly else None
                found.append(
                    Vote(
                        judge=judge,
                        principle=principle,
                        order=order,
                        sample=sample,
                        call=call,
                        key=digest({**asked, "judge": identity.key()}),
                        former_key=former,
                    )
                )
        return tuple(found)

    def judgement(self, question: Question, vote: Vote, reading: Reading, now: float) -> Judgement:
        """The row of one judgement."""
        return Judgement(
            key=vote.key,
            item=question.item.digest,
            principle_id=vote.principle.id,
            principle=vote.principle.digest,
            shown=vote.order,
            sample=vote.sample,
            prompt=vote.call.digest,
            judge=self._judges[vote.judge],
            method=self.method.digest,
            reading=reading,
            created_at=now,
            serving=self._identities[vote.judge].serving,
        )

    def labels(
        self, question: Question, readings: Mapping[str, Reading], stored_as: Mapping[str, str]
    ) -> list[Label]:
        """What the readings of a question add up to, one label per pair of its item.

        `stored_as` maps the keys of judgements that the ledger has under a former key to that.
        """
        shown = orders(len(question.item.responses))
        answers = [readings[vote.key] for vote in question.votes]
        votes = [answers[n : n + len(shown)] for n in range(0, len(answers), len(shown))]
        labels = []
        for pair, label_digest in zip(question.item.pairs, question.label_digests, strict=True):
            name = "ab" if isinstance(question.item, Pair) else pair.id[-2:]
            total = combine(votes, self._settings.margins, shown=shown, pair=name)
            labels.append(
                Label(
                    pair_id=pair.id,
                    p=None if total.p is None else self._settings.clamped(total.p),
                    status=total.status,
                    principles=tuple(p.id for p in question.principles),
                    judgements=tuple(stored_as.get(vote.key, vote.key) for vote in question.votes),
                    digest=label_digest,
                    p_ab=total.p_ab,
                    p_ba=total.p_ba,
                    p_raw=total.p,
                    spread=total.spread,
                    detail=total.detail,
                )
            )
        return labels

    def label_rows(self, question: Question, labels: Sequence[Label], now: float) -> list[LabelRow]:
        """The rows of a question's labels."""
        return [
            LabelRow(
                label=label,
                item=pair.digest,
                principle_digests=tuple(p.digest for p in question.principles),
                made_with=self.version,
                created_at=now,
            )
            for pair, label in zip(question.item.pairs, labels, strict=True)
        ]
