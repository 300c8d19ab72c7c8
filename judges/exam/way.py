"""The way of asking that an exam was taken in: what decides a label beside judge, principles and seed."""

from __future__ import annotations

from dataclasses import asdict

from common.digest import digest
from constitution import Constitution
from constitution.model import vars_of
from judges.asking.methods import Method
from judges.settings import LabelSettings


def way_of_asking(settings: LabelSettings, constitution: Constitution) -> str:
    """Digest of templates, read-out, rationales, margins and principles per pair; a seed is no way of asking.

    Raises JudgeError for an unknown template set.
    """
    return way_of_method(
        Method.of(settings, [vars_of(e) for e in constitution.comparison_exemplars]), settings
    )


def way_of_method(method: Method, settings: LabelSettings) -> str:
    """The same of a method that is already there."""
    samplings = [{**asdict(sampling), "seed": 0} for sampling in method.samplings]
    return digest(
        {
            "method": {**method.content, "samplings": samplings},
            "margins": settings.key(),
            "principles": settings.principles,
        }
    )
