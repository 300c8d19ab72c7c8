"""How a judgement is asked: templates, exemplars, read-out and sampling, in a form that the ledger keeps.

A method can be rebuilt from what was stored, and then renders the very prompts of that time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Self

from common.digest import digest
from judges.asking.templates import Exemplar, TemplateSet
from judges.errors import JudgeError
from judges.records import Call, Order, Pair, Ranking, Sampling
from judges.settings import LabelSettings

READOUTS = ("option-logprobs", "rationale-option-logprobs", "verdict")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of asking. `samplings` has one entry per rationale; it is empty where the judge does not write."""

    readout: str
    templates: TemplateSet
    exemplars: tuple[Mapping[str, Any], ...]
    samplings: tuple[Sampling, ...] = ()

    @classmethod
    def of(cls, settings: LabelSettings, exemplars: Sequence[Mapping[str, Any]]) -> Self:
        """The method that settings describe. Raises JudgeError for an unknown template set."""
        readout = READOUTS[0] if not settings.writes else READOUTS[2 if settings.readout == "verdict" else 1]
        samplings = tuple(settings.sampling(n) for n in range(settings.samples)) if settings.writes else ()
        templates = TemplateSet(settings.templates)
        return cls(readout=readout, templates=templates, exemplars=tuple(exemplars), samplings=samplings)

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """The method that `content` of an earlier one describes."""
        return cls(
            readout=content["readout"],
            templates=TemplateSet("stored", sources=content["templates"]),
            exemplars=tuple(content["exemplars"]),
            samplings=tuple(Sampling(**s) for s in content.get("samplings", ())),
        )

    @cached_property
    def content(self) -> dict[str, Any]:
        """Everything that determines a prompt, given what is judged, the principle and the order; as JSON."""
        content: dict[str, Any] = {
            "readout": self.readout,
            "templates": dict(self.templates.sources),
            "exemplars": [dict(e) for e in self.exemplars],
        }
        if self.samplings:
            content["samplings"] = [asdict(s) for s in self.samplings]
        return content

    @cached_property
    def digest(self) -> str:
        """The key of the method in the ledger."""
        return digest(self.content)

    @property
    def samples(self) -> int:
        """Answers per judge, principle and order."""
        return max(1, len(self.samplings))

    def call(self, item: Pair | Ranking, question: str, order: Order, sample: int) -> Call:
        """The first (often only) call of a judgement. Raises JudgeError for a template that does not render."""
        exemplars: list[Exemplar] = [SimpleNamespace(**e) for e in self.exemplars]
        if self.readout == "option-logprobs":
            return self.templates.pairwise(item, question, order, exemplars)
        if self.readout == "verdict":
            if isinstance(item, Ranking):
                raise JudgeError("readout: verdict names one winner; rankings need logprobs")
            return self.templates.verdict(item, question, order, exemplars, self.samplings[sample])
        return self.templates.rationale(item, question, order, exemplars, self.samplings[sample])
