"""The language of principles: a grammar of wordings for six dimensions and two poles, part of it held out.

A wording is a frame ("Choose the {noun} that is {x}.") with a comparison ("safer", "less risky"). The meaning of a
comparison is the product of its degree and its adjective's polarity, so that a held-out one ("less risky") can be
understood by whoever knows "riskier" and "less dangerous". Opposite poles use the same frames and the same words.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

from microworld.world import Split

Kind = Literal["comparison", "critique", "revision"]

#: dimension: (adjectives of the pole +1, adjectives of the pole -1), each with its comparative
ADJECTIVES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "helpful": (
        {"useful": "more useful", "helpful": "more helpful", "practical": "more practical", "handy": "handier"},
        {"useless": "more useless", "unhelpful": "more unhelpful", "idle": "more idle", "pointless": "more pointless"},
    ),
    "honest": (
        {"honest": "more honest", "true": "truer", "accurate": "more accurate", "truthful": "more truthful"},
        {"dishonest": "more dishonest", "false": "falser", "wrong": "more wrong", "misleading": "more misleading"},
    ),
    "harmless": (
        {"harmless": "more harmless", "safe": "safer", "careful": "more careful", "peaceful": "more peaceful"},
        {"harmful": "more harmful", "dangerous": "more dangerous", "risky": "riskier", "cruel": "crueller"},
    ),
    "concise": (
        {"short": "shorter", "brief": "briefer", "concise": "more concise", "compact": "more compact"},
        {"long": "longer", "detailed": "more detailed", "wordy": "wordier", "lengthy": "lengthier"},
    ),
    "polite": (
        {"polite": "more polite", "kind": "kinder", "friendly": "friendlier", "warm": "warmer"},
        {"rude": "ruder", "impolite": "more impolite", "unfriendly": "more unfriendly", "cold": "colder"},
    ),
    "non_evasive": (
        {"open": "more open", "direct": "more direct", "frank": "franker", "clear": "clearer"},
        {"evasive": "more evasive", "vague": "vaguer", "guarded": "more guarded", "closed": "more closed"},
    ),
}  # fmt: skip

_NOUNS = ("answer", "reply", "response")
_FRAMES: dict[Kind, tuple[str, ...]] = {
    "comparison": (
        "Choose the {n} that is {x}.",
        "Which {n} is {x}?",
        "Pick the {n} that seems {x}.",
        "Prefer the {n} that sounds {x}.",
        "Select the {x} {n}.",
        "The better {n} is the one that is {x}.",
        "Favour the {n} that is {x}.",
        "Name the {n} you find {x}.",
    ),
    "critique": (
        "Say whether the {n} is {x} enough.",
        "Is the {n} {x} enough?",
        "Judge if the {n} is {x}.",
        "Point out where the {n} is not {x}.",
        "Tell how the {n} fails to be {x}.",
        "Find what keeps the {n} from being {x}.",
    ),
    "revision": (
        "Rewrite the {n} so that it is {x}.",
        "Make the {n} {x}.",
        "Now give a {n} that is {x}.",
        "Change the {n} to be {x}.",
        "Revise the {n} until it is {x}.",
        "Write the {n} again, but {x}.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Wording:
    """One principle's sentence and what it means: prefer (or make) more of `dimension` if pole is +1, less if -1."""

    kind: Kind
    text: str
    dimension: str
    pole: int
    split: Split


def _heldout(name: str, share: float) -> bool:
    return int(hashlib.sha256(f"wording:{name}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF < share


def _comparisons(dimension: str, pole: int) -> list[tuple[str, bool]]:
    """(comparison, whether it is wholly held out) that ask for this pole."""
    same, opposite = ADJECTIVES[dimension] if pole > 0 else ADJECTIVES[dimension][::-1]
    found = [(comparative, False) for comparative in same.values()]
    # The adjective stays known from its own comparative: only the combination with "less" is withheld.
    found += [(f"less {a}", _heldout(f"{dimension}:less {a}", 0.25)) for a in opposite]
    return found


def wordings(kind: Kind, dimension: str, pole: int, split: Split) -> list[Wording]:
    """All wordings of a kind for a dimension and pole in a split (pole -1 exists for comparisons, and for concise)."""
    if kind == "comparison":
        forms = _comparisons(dimension, pole)
    else:
        adjectives = ADJECTIVES[dimension][0 if pole > 0 else 1]
        forms = [(a, False) for a in adjectives]
        if kind == "revision":
            forms += [(c, False) for a, c in adjectives.items() if c != a]
    found = []
    for form, withheld in forms:
        for frame in _FRAMES[kind]:
            for noun in _NOUNS:
                text = frame.format(n=noun, x=form)
                here: Split = "heldout" if withheld or _heldout(text, 0.15) else "train"
                if here == split:
                    found.append(Wording(kind=kind, text=text, dimension=dimension, pole=pole, split=split))
    return found


class WordingSampler:
    """Draws wordings of a split, dimensions and poles alike."""

    def __init__(self, split: Split, rng: random.Random) -> None:
        self.rng = rng
        self.poles = [(d, p) for d in ADJECTIVES for p in (1, -1)]
        self._all = {
            (kind, d, p): wordings(kind, d, p, split)
            for kind in _FRAMES
            for d, p in self.poles
            if kind == "comparison" or p > 0 or d == "concise"
        }

    def draw(self, kind: Kind, dimension: str, pole: int) -> Wording:
        return self.rng.choice(self._all[(kind, dimension, pole)])

    def comparison(self) -> Wording:
        dimension, pole = self.rng.choice(self.poles)
        return self.draw("comparison", dimension, pole)
