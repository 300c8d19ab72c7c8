"""Statistics of an evaluation, on plain numbers and texts: comparisons of models, and side effects of training.

Nothing here runs a model, asks a judge, or knows Prefect; `movement` alone reads files, those of weights.
"""

from flows.evaluation.ratings import Ratings, rate_models
from flows.evaluation.readings import Answered, OpinionPair, opinion_pairs, read_answers
from flows.evaluation.side_effects import watch
from flows.evaluation.steps import watch_steps
from flows.evaluation.win_rates import Match, head_to_head, length_controlled

__all__ = [
    "Answered",
    "Match",
    "OpinionPair",
    "Ratings",
    "head_to_head",
    "length_controlled",
    "opinion_pairs",
    "rate_models",
    "read_answers",
    "watch",
    "watch_steps",
]
