"""What a labelling will ask of the judge: judgements, tokens, and hours at a stated or measured speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from constitution import Constitution
from flows.labelling.judge import closing, label_settings, make_judge
from flows.labelling.ledger import existing
from judges import Judge, JudgeError, JudgeIdentity, Ledger, Pair
from judges.asking.questions import Questionnaire
from judges.encoding import CallEncoder
from judges.ledger.statistics import PlanStatistics
from judges.records import Call
from judges.reuse import look_up
from judges.thinking import budget_of

if TYPE_CHECKING:
    from flows.config import RunConfig

SAMPLE = 64
"""Pairs whose prompts are rendered and counted, and judgements that a probe asks."""
CHARACTERS_PER_TOKEN = 4.0
"""Of English text under common vocabularies; used only where no tokenizer is at hand."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Judgements per second of all endpoints together, and where the figure comes from."""

    per_second: float
    source: str


@dataclass(frozen=True, kw_only=True)
class JudgeForecast:
    """`known` judgements are in the ledger; `judgements` will be asked. Tokens are those of the judgements asked."""

    judgements: int
    known: int
    prompt_tokens: int
    completion_tokens: int
    source: str


class JudgeForecaster:
    """The judge of a configuration, its ledger if there is one, and the questions that it would be asked."""

    def __init__(self, config: RunConfig, constitution: Constitution, *, ledger: str) -> None:
        self._config, self._constitution, self._ledger = config, constitution, ledger
        self._settings = label_settings(config)
        self._judge = make_judge(config.judge)
        self._identity: JudgeIdentity | None = None

    def speed(self, *, given: float | None, probe: Sequence[Pair] | None) -> Speed | None:
        """As stated, as a short probe of pairs measures it, or as the ledger remembers it; None where nobody knows.

        A probe asks the judge and keeps nothing. Raises JudgeError when it fails.
        """
        if given is not None:
            return Speed(per_second=given, source="as stated")
        if probe:
            with closing(self._judge):
                return self._probe(probe)
        with existing(self._ledger) as ledger:
            seconds = None if ledger is None else PlanStatistics(ledger).seconds_per_call()
        return Speed(per_second=1 / seconds, source="mean of the ledger's judgements") if seconds else None

    def of_pairs(self, pairs: Sequence[Pair]) -> JudgeForecast:
        """Of pairs that are there: every judgement that the ledger lacks, each counted once."""
        with existing(self._ledger) as ledger:
            asked, known = self._counted(pairs, ledger)
        prompt, source = self._prompt_tokens(pairs[:SAMPLE], "counted on the pairs")
        return self._total(asked, known, prompt, source)

    def _counted(self, pairs: Sequence[Pair], ledger: Ledger | None) -> tuple[int, int]:
        """Judgements to ask, and judgements that the ledger has.

        Of the failures that the way of serving caused, one of each cause is asked; only if that shows the cause gone
        are the others asked too.
        """
        questionnaire = self._questionnaire(ledger)
        if ledger is None:
            # Without rendering prompts: the same content under the same principle is the same judgement.
            asked = {
                (q.item.digest, p.digest) for q in map(questionnaire.question, pairs) for p in q.principles
            }
            return 2 * self._settings.samples * len(asked), 0
        wanted = known = 0
        causes: set[str | None] = set()
        for start in range(0, len(pairs), 1024):
            batch = map(questionnaire.question, pairs[start : start + 1024])
            votes = {vote.key: vote for question in batch for vote in question.votes}
            there = look_up(ledger, list(votes.values()))
            wanted += len(votes)
            known += len(there.readings) + len(there.caused)
            causes |= {failure.cause for failure in there.caused.values()}
        return wanted - known + len(causes), known

    def of_prompts(
        self, pairs: int, sample: Sequence[Pair], *, answer_tokens: int, further_tokens: float = 0.0
    ) -> JudgeForecast:
        """Before the pairs are there: at most so many, their answers as long as they may be.

        `sample` are pairs of real prompts with empty answers; `further_tokens` are those that all pairs together
        hold beyond what the sample shows.
        """
        asked = 2 * self._settings.samples * self._settings.principles * pairs
        frame, source = self._prompt_tokens(sample, "prompts counted, answers as long as they may be")
        tokens = frame + 2 * answer_tokens + further_tokens / max(1, pairs)
        return self._total(asked, 0, tokens, f"at most; {source}")

    def _total(self, asked: int, known: int, prompt: float, source: str) -> JudgeForecast:
        written = self._settings.rationale_tokens if self._settings.writes else 0
        if self._settings.rationales:  # the rationale is written, then read again with the question
            prompt = 2 * prompt + written
        if (thought := budget_of(self._config.judge.thinking)) is not None:  # read again before the answer
            prompt, written = 2 * prompt + thought, written + thought
        return JudgeForecast(
            judgements=asked,
            known=known,
            prompt_tokens=round(asked * prompt),
            completion_tokens=asked * (written + 1),
            source=source,
        )

    def _prompt_tokens(self, pairs: Sequence[Pair], counted: str) -> tuple[float, str]:
        """Mean tokens of a question about these pairs, and how that is known."""
        calls = self._calls(pairs)
        folder = self._config.judge.tokenizer
        if self._config.judge.kind != "openai" and Path(self._config.judge.model).is_dir():
            folder = Path(self._config.judge.model)
        if folder is not None:
            from transformers import AutoTokenizer

            encoder = CallEncoder(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
            lengths = [len(ids) for ids in encoder.encode(calls)]
            return sum(lengths) / max(1, len(lengths)), counted
        texts = [c.text or "".join(m["content"] for m in c.messages) for c in calls]
        characters = sum(map(len, texts)) / max(1, len(texts))
        return (
            characters / CHARACTERS_PER_TOKEN,
            f"{counted}, {CHARACTERS_PER_TOKEN:g} characters a token (no tokenizer)",
        )

    def _calls(self, pairs: Sequence[Pair]) -> list[Call]:
        questionnaire = self._questionnaire()
        return [vote.call for pair in pairs for vote in questionnaire.question(pair).votes]

    def _probe(self, pairs: Sequence[Pair]) -> Speed:
        calls = self._calls(pairs)
        if len(calls) > 2 * SAMPLE:
            calls = calls[: 2 * SAMPLE]
        half = len(calls) // 2
        self._judge.ask(calls[:half])  # connections, tokenizer, the prefix that all prompts share
        began = time.perf_counter()
        readings = self._judge.ask(calls[half:])
        seconds = time.perf_counter() - began
        failed = [r.detail for r in readings if r.status in ("error", "timeout")]
        if failed:
            raise JudgeError(f"the probe failed: {failed[0]}")
        return Speed(per_second=len(readings) / seconds, source=f"measured now on {len(readings)} judgements")

    def _questionnaire(self, ledger: Ledger | None = None) -> Questionnaire:
        """With the judge's own identity where it answers; without it nothing can be in the ledger, only counted."""
        if self._identity is None:
            try:
                self._identity = self._judge.identity
            except JudgeError:
                self._identity = JudgeIdentity(
                    kind="openai", model=self._config.judge.model, revision="unknown"
                )
        identity = self._identity if ledger is None else ledger.known_as(self._identity)
        return Questionnaire(self._constitution, [identity], self._settings)

    @property
    def judge(self) -> Judge:
        """The judge; nothing is loaded before it is asked."""
        return self._judge
