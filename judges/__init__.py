"""Who decides: prompts, judges, the read-out of option probabilities, labels and the ledger that keeps them.

    from judges import InProcessJudge, LabelSettings, Ledger, Pair, label_pairs

    with Ledger.open("sqlite:///runs/ledger.db") as ledger:
        report = label_pairs(pairs, constitution=c, judge=InProcessJudge("model"), ledger=ledger,
                             settings=LabelSettings(templates="default"))

Importing this package loads neither torch nor prefect.
"""

from judges.against import BaselineScorer
from judges.asking.combine import Combined, Margins, combine
from judges.asking.scoring import PointwiseScorer, Score
from judges.asking.templates import TemplateSet
from judges.errors import JudgeError, JudgeUnavailable, LedgerError
from judges.export import export_preferences
from judges.inprocess import InProcessJudge
from judges.labelling import LabelReport, label_pairs
from judges.ledger import Ledger
from judges.openai_judge import OpenAIJudge, Prices
from judges.records import (
    FAILURES,
    ORDERS,
    STATUSES,
    TRANSIENT,
    Call,
    Judge,
    JudgeIdentity,
    Label,
    Message,
    Order,
    Pair,
    Ranking,
    Reading,
    Sampling,
    Status,
)
from judges.scripted import ScriptedJudge
from judges.settings import LabelSettings
from judges.vllm_judge import VllmJudge

__all__ = [
    "FAILURES",
    "ORDERS",
    "STATUSES",
    "TRANSIENT",
    "BaselineScorer",
    "Call",
    "Combined",
    "InProcessJudge",
    "Judge",
    "JudgeError",
    "JudgeIdentity",
    "JudgeUnavailable",
    "Label",
    "LabelReport",
    "LabelSettings",
    "Ledger",
    "LedgerError",
    "Margins",
    "Message",
    "OpenAIJudge",
    "Order",
    "Pair",
    "PointwiseScorer",
    "Prices",
    "Ranking",
    "Reading",
    "Sampling",
    "Score",
    "ScriptedJudge",
    "Status",
    "TemplateSet",
    "VllmJudge",
    "combine",
    "export_preferences",
    "label_pairs",
]
