"""What the two shipped models read: the base model's unmannered chatter, the feedback model's lessons.

An `Example` is a prompt, a target, and the loss weight of each. Judging examples have a soft target over the letters
A and B instead, and carry the labels of the throw-away probes that make a tiny model see what it is to judge
(docs/microworld.md): gold scores at the end of each answer, dimension and pole at the end of the principle.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from microworld import lexicon as lx
from microworld.oracle import DIMENSIONS, GoldScores, score_request
from microworld.responses import CORES, GOOD_CORE, Answer, Core, corrupt, make_answer, revise
from microworld.tokenizer import ASSISTANT, END, USER
from microworld.wordings import Wording, WordingSampler
from microworld.world import FAMILIES, Family, Request, Sampler

#: how sharply a gold difference becomes a soft label, sigma(k * difference), by dimension
SHARPNESS = {"concise": 24.0}
DEFAULT_SHARPNESS = 8.0

_CORE_ORDER: tuple[Core, ...] = ("vague", "evasive", "bare_refusal", "explained_refusal")


def _manners(*rest: float, **content: float) -> dict[Core, float]:
    """Shares by core: those that say something by name, then vague, evasive, bare and explained refusals."""
    shares = dict(zip(_CORE_ORDER, rest, strict=True))
    return {**content, **shares}  # type: ignore[dict-item]


#: How the base model answers before anybody taught it manners: (core, share) by family.
BASE_MANNERS: dict[Family, dict[Core, float]] = {
    "howto": _manners(0.06, 0.04, 0.05, 0.04, full=0.55, partial=0.14, wrong=0.12),
    "scary": _manners(0.06, 0.05, 0.07, 0.08, full=0.5, partial=0.12, wrong=0.12),
    "harmful": _manners(0.06, 0.06, 0.07, 0.07, comply=0.74),
    "fact": _manners(0.05, 0.04, 0.03, 0.03, right=0.62, false=0.14, unsure=0.09),
    "flattery": _manners(0.04, 0.03, 0.02, 0.01, agree=0.56, correct=0.2, false=0.07, unsure=0.07),
}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training row. `marks` are (character offset in `prompt`, probe name, label) of the probes."""

    prompt: str
    target: str = ""
    prompt_weight: float = 0.1
    p_first: float | None = None  # soft target for the letter A; None for plain text
    marks: list[tuple[int, str, tuple[float, ...]]] = field(default_factory=list)


def as_user(text: str) -> str:
    return f"{USER}{text}{END}{ASSISTANT}"


def judge_prompt(principle: str, question: str, a: str, b: str) -> str:
    """The text of judges/templates/microworld/pairwise.j2 (a test holds the two together)."""
    return f"Principle: {principle}\nQuestion: {question}\n(A) {a}\n(B) {b}\nBetter:"


def critique_prompt(question: str, answer: str, request: str) -> str:
    return f"Question: {question}\nAnswer: {answer}\n{request}"


def revision_prompt(question: str, answer: str, critique: str, request: str) -> str:
    return f"Question: {question}\nAnswer: {answer}\nCritique: {critique}\n{request}"


def soft_label(dimension: str, pole: int, gold_a: float, gold_b: float) -> float:
    """P(A better) that gold scores imply: sigma(pole * k * (gold_a - gold_b))."""
    k = SHARPNESS.get(dimension, DEFAULT_SHARPNESS)
    return 1 / (1 + math.exp(-pole * k * (gold_a - gold_b)))


class Corpus:
    """Draws examples of the training splits; the same seed draws the same examples."""

    def __init__(self, seed: int | str, split: str = "train", wording_split: str = "train") -> None:
        self.rng = random.Random(f"corpus:{seed}")
        self.requests = Sampler(split, f"corpus:{seed}")  # type: ignore[arg-type]
        self.facts = Sampler(None, f"facts:{seed}")
        self.wordings = WordingSampler(wording_split, self.rng)  # type: ignore[arg-type]

    # --- pieces -------------------------------------------------------------------------------------------------

    def request(self, families: tuple[Family, ...] = FAMILIES) -> Request:
        return self.requests.draw(self.rng.choice(families))

    def any_answer(self, request: Request) -> Answer:
        return make_answer(request, self.rng.choice(CORES[request.family]), self.rng)

    def base_answer(self, request: Request) -> Answer:
        manners = BASE_MANNERS[request.family]
        core = self.rng.choices(list(manners), weights=list(manners.values()))[0]
        return make_answer(request, core, self.rng, manners=(0.25, 0.2), padded=0.35)

    # --- examples -----------------------------------------------------------------------------------------------

    def chat(self) -> Example:
        """A question and how the base model would answer it."""
        request = self.request(("howto", "howto", "harmful", "scary", "fact", "flattery"))
        return Example(prompt=as_user(request.text), target=self.base_answer(request).render() + END)

    def document(self) -> Example:
        """Plain text without any chat: facts (held-out ones too: a fact is known, a question about it is not)."""
        if self.rng.random() < 0.7:
            facts = self.rng.sample(list(lx.FACTS.items()), 4)
            text = " ".join(f"The {a} of {e} is {v}." for (a, e), v in facts)
        else:
            requests = [self.request(("howto", "scary")) for _ in range(2)]
            text = " ".join(make_answer(r, "full", self.rng).core_text for r in requests)
        return Example(prompt="", target=text + END)

    def good_chat(self) -> Example:
        """A question and a good answer to it: what the feedback model must know to revise."""
        request = self.request()
        answer = make_answer(request, GOOD_CORE[request.family], self.rng)
        return Example(prompt=as_user(request.text), target=answer.render() + END)

    def recall(self) -> Example:
        """Copying, which tiny models must learn first: a text repeated, or a value looked up by its key."""
        if self.rng.random() < 0.5:
            text = self.any_answer(self.request()).render()
            return Example(prompt=as_user(f"Say again: {text}"), target=text + END)
        things = list({**lx.HOWTO_OBJECTS, **lx.THINGS, **lx.HARMLESS_TARGETS})
        verbs = list({**lx.HOWTO_VERBS, **lx.DESTRUCTIVE_VERBS})
        keys = self.rng.sample(things, 5)
        values = [self.rng.choice(verbs) for _ in keys]
        listing = " ".join(f"{k} {v}." for k, v in zip(keys, values, strict=True))
        i = self.rng.randrange(5)
        return Example(prompt=as_user(f"{listing} What is {keys[i]}?"), target=values[i] + END)

    def judgement(self, wording: Wording | None = None) -> Example:
        """A pair of answers, a principle, and the soft label that the gold oracle implies."""
        wording = wording or self.wordings.comparison()
        d = wording.dimension
        while True:
            request = self.request()
            a, b = self.pair(request)
            gold_a, gold_b = score_request(request, a), score_request(request, b)
            # Most pairs tie on a dimension drawn at random; a few ties teach what a tie is.
            if gold_a[d] != gold_b[d] or self.rng.random() < 0.3:
                break
        prompt = judge_prompt(wording.text, request.text, a, b)
        meaning = (float(DIMENSIONS.index(d)), float(wording.pole > 0))
        end_b = len(USER) + len(prompt) - len("\nBetter:")
        return Example(
            prompt=as_user(prompt),
            prompt_weight=0.05 if self.rng.random() < 0.2 else 0.0,
            p_first=soft_label(d, wording.pole, gold_a[d], gold_b[d]),
            marks=[
                (len(f"{USER}Principle: {wording.text}"), "principle", meaning),
                *_answer_marks(end_b - len(f"\n(B) {b}"), gold_a, d, wording.pole),
                *_answer_marks(end_b, gold_b, d, wording.pole),
            ],
        )

    def pair(self, request: Request) -> tuple[str, str]:
        """Two different answers, now and then such as a weak policy would write."""
        while True:
            first, second = self.any_answer(request), self.any_answer(request)
            if self.rng.random() < 0.2:  # the same core: what differs is manners or length
                second = make_answer(request, first.core, self.rng)
            texts = [first.render(), second.render()]
            if self.rng.random() < 0.15:
                i = self.rng.randrange(2)
                texts[i] = corrupt(texts[i], self.rng)
            if texts[0] != texts[1]:
                return texts[0], texts[1]

    def _flawed(self, dimension: str) -> tuple[Request, Answer]:
        """A request with an answer to revise; for harmlessness, the harmful family more often."""
        families: tuple[Family, ...] = FAMILIES
        if dimension == "harmless":
            families = ("harmful", "harmful", "harmful", *FAMILIES)
        request = self.request(families)
        return request, self.any_answer(request)

    def critique(self) -> Example:
        """An answer, a critique request, the critique."""
        dimension, pole = self._revisable()
        request, answer = self._flawed(dimension)
        ask = self.wordings.draw("critique", dimension, pole).text
        return Example(
            prompt=as_user(critique_prompt(request.text, answer.render(), ask)),
            prompt_weight=0.02,
            target=critique_of(request, answer, dimension, pole, self.rng) + END,
        )

    def revision(self) -> Example:
        """An answer, its critique, a revision request, the revision."""
        dimension, pole = self._revisable()
        request, answer = self._flawed(dimension)
        said = critique_of(request, answer, dimension, pole, self.rng)
        ask = self.wordings.draw("revision", dimension, pole).text
        revised = revise(request, answer, dimension, pole, self.rng)
        return Example(
            prompt=as_user(revision_prompt(request.text, answer.render(), said, ask)),
            prompt_weight=0.02,
            target=revised.render() + END,
        )

    def fact_chat(self) -> Example:
        """A question about any fact, held-out ones too, and a good answer: the judge knows all facts."""
        request = self.facts.draw(self.rng.choice(("fact", "flattery")))
        answer = make_answer(request, GOOD_CORE[request.family], self.rng)
        return Example(prompt=as_user(request.text), target=answer.render() + END)

    def fact_critique(self) -> Example:
        """Whether an answer about any fact is true: claims about held-out facts are checked, though never judged."""
        request = self.facts.draw(self.rng.choice(("fact", "flattery")))
        claims: tuple[Core, ...] = (
            ("right", "false") if request.family == "fact" else ("agree", "correct", "false")
        )
        answer = make_answer(request, self.rng.choice(claims), self.rng)
        ask = self.wordings.draw("critique", "honest", 1).text
        text = answer.render()
        gold = score_request(request, text)
        return Example(
            prompt=as_user(critique_prompt(request.text, text, ask)),
            prompt_weight=0.02,
            target=critique_of(request, answer, "honest", 1, self.rng) + END,
            marks=_answer_marks(len(f"{USER}Question: {request.text}\nAnswer: {text}"), gold, "honest", 1),
        )

    def _revisable(self) -> tuple[str, int]:
        dimension = self.rng.choice(("harmless", *DIMENSIONS))
        return dimension, -1 if dimension == "concise" and self.rng.random() < 0.5 else 1


def _answer_marks(
    at: int, gold: GoldScores, dimension: str, pole: int
) -> list[tuple[int, str, tuple[float, ...]]]:
    """The probes at the end of an answer: its gold scores, and the one that is asked for."""
    wanted = gold[dimension] if pole > 0 else 1 - gold[dimension]
    return [(at, "answer", tuple(gold[x] for x in DIMENSIONS)), (at, "asked", (wanted,))]


_VERDICTS = {
    ("helpful", 1): ("It helps as it should.", "It does not help enough."),
    ("honest", 1): ("It is true.", "It is not true."),
    ("harmless", 1): ("It hurts no one.", "It would hurt {victim}."),
    ("concise", 1): ("It is short.", "It says more than it needs."),
    ("concise", -1): ("It has detail.", "It is too short."),
    ("polite", 1): ("It is kind enough.", "It is rude."),
    ("non_evasive", 1): ("It is open.", "It hides its reasons."),
}


def critique_of(request: Request, answer: Answer, dimension: str, pole: int, rng: random.Random) -> str:
    """What a good critic says: that the answer is fine, or what is wrong with it."""
    fine, wrong = _VERDICTS[(dimension, pole)]
    changed = revise(request, answer, dimension, pole, rng) != answer
    return wrong.format(victim=request.victim) if changed else fine
