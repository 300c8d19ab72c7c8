"""Which judge answered: what of it decides an answer, and what is provenance only."""

from __future__ import annotations

import re
from dataclasses import dataclass


def joined(*parts: str) -> str:
    """Ways of serving together, those that say nothing left out."""
    return "; ".join(filter(None, parts))


@dataclass(frozen=True, kw_only=True)
class JudgeIdentity:
    """Who answered, and in which way.

    `model`, `revision` and `serving` determine an answer; `kind` and `build` are provenance only. `serving` is empty
    where weights and tokenizer are those of `revision` and numbers are float32 or a server's own; otherwise it says
    what else decides: the route, another tokenizer, a coarser type of number, thoughts. `former_revision` is how
    ledgers before schema 0006 know the same folder.
    """

    kind: str
    model: str
    revision: str
    build: str = ""
    serving: str = ""
    former_revision: str = ""

    @property
    def by_weights(self) -> bool:
        """Whether `revision` is a digest of the weights, so that the name of their folder says nothing more."""
        return re.fullmatch(r"[0-9a-f]{64}", self.revision) is not None

    @property
    def thoughts(self) -> str:
        """What a setting says of thoughts, as `serving` has it; empty without one."""
        return next((part for part in self.serving.split("; ") if part.startswith("thinking")), "")

    def key(self) -> dict[str, str]:
        """The part that goes into the key of a judgement."""
        return self.former_key() | ({"serving": self.serving} if self.serving else {})

    def former_key(self) -> dict[str, str]:
        """The same before schema 0006, which knew no way of serving."""
        return {"model": self.model, "revision": self.revision}
