"""BLEU and ROUGE against reference answers, by the libraries that everybody's numbers come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.record import Record
from common.statistics import Estimate, bounded_mean
from flows.errors import FlowError

_ROUGES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True, kw_only=True)
class Bleu(Record):
    """sacrebleu's BLEU of a corpus of `n` texts, 0-100, with its signature (Post 2018)."""

    value: float
    n: int
    signature: str


@dataclass(frozen=True, kw_only=True)
class ReferenceMetrics(Record):
    """BLEU of the corpus, and ROUGE F scores (Lin 2004, stemmed, the best of the references) in [0, 1]."""

    bleu: Bleu
    rouge1: Estimate
    rouge2: Estimate
    rougeL: Estimate


def reference_metrics(texts: Sequence[str], references: Sequence[Sequence[str]]) -> ReferenceMetrics | None:
    """Of texts, each with its references; texts without any are left out. None without references.

    Raises FlowError when the extra `charter[metrics]` is not installed.
    """
    known = [(text, list(refs)) for text, refs in zip(texts, references, strict=True) if refs]
    if not known:
        return None
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics import BLEU
    except ImportError as error:
        raise FlowError(
            f"the prompts have references, but {error.name} is not installed: pip install 'charter[metrics]'"
        ) from error
    # sacrebleu wants the first references of all texts, then the second ones; "" stands for none.
    most = max(len(refs) for _, refs in known)
    columns = [[refs[i] if i < len(refs) else "" for _, refs in known] for i in range(most)]
    bleu = BLEU()
    score = bleu.corpus_score([text for text, _ in known], columns)
    scorer = RougeScorer(list(_ROUGES), use_stemmer=True)
    scored = [scorer.score_multi(refs, text) for text, refs in known]
    return ReferenceMetrics(
        bleu=Bleu(value=float(score.score), n=len(known), signature=str(bleu.get_signature())),
        **{name: bounded_mean([float(s[name].fmeasure) for s in scored]) for name in _ROUGES},
    )
