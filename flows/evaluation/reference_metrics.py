"""BLEU and ROUGE against reference answers, by the libraries that everybody's numbers come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.statistics import bounded_mean
from flows.errors import FlowError

_ROUGES = ("rouge1", "rouge2", "rougeL")


def reference_metrics(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """`{"bleu": {...}, "rouge1": {...}, ...}` of texts, each with its references; texts without any are left out.

    bleu is sacrebleu's of the corpus, 0-100, with its signature (Post 2018). The ROUGE F scores (Lin 2004, with
    stemming, the best of an answer's references) are means in [0, 1] with a 95% interval. {} without references.

    Raises FlowError when the extra `charter[metrics]` is not installed.
    """
    known = [(text, list(refs)) for text, refs in zip(texts, references, strict=True) if refs]
    if not known:
        return {}
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
    found: dict[str, Any] = {
        "bleu": {"value": float(score.score), "n": len(known), "signature": str(bleu.get_signature())}
    }
    scorer = RougeScorer(list(_ROUGES), use_stemmer=True)
    scored = [scorer.score_multi(refs, text) for text, refs in known]
    for name in _ROUGES:
        found[name] = bounded_mean([float(s[name].fmeasure) for s in scored])
    return found
