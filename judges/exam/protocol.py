"""The protocol of an exam: what decides a label beside judge, principles and seed."""

from __future__ import annotations

from dataclasses import asdict

from common.digest import digest
from constitution import Constitution
from constitution.model import vars_of
from judges.asking.methods import Method
from judges.settings import LabelSettings


def protocol_digest(settings: LabelSettings, constitution: Constitution) -> str:
    """Digest of templates, read-out, rationales, margins and principles per pair; a seed is no part of it.

    Raises JudgeError for an unknown template set.
    """
    return method_digest(
        Method.of(settings, [vars_of(e) for e in constitution.comparison_exemplars]), settings
    )


def method_digest(method: Method, settings: LabelSettings) -> str:
    """The same of a method that is already there."""
    samplings = [{**asdict(sampling), "seed": 0} for sampling in method.samplings]
    return digest(
        {
            "method": {**method.content, "samplings": samplings},
            "margins": settings.key(),
            "principles": settings.principles,
        }
    )
