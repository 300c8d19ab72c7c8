"""Constitutions as versioned, checked, diffable files.

    from constitution import load, draw_comparison, draw_critique, render_critique, render_revision

    c = load("microworld@^1.0")
    c.comparison_digest                                  # changes when labels must
    draw_comparison(c, "pair-17", seed=0)                # (ComparisonPrinciple(id="honest", …),)

Imports neither torch nor prefect.
"""

from constitution.draw import draw_comparison, draw_critique
from constitution.loading import load, loads, require_published
from constitution.model import (
    ComparisonExemplar,
    ComparisonPrinciple,
    Constitution,
    ConstitutionError,
    CritiqueExemplar,
    CritiquePrinciple,
    Problem,
)
from constitution.render import render_critique, render_revision, templates_digest

__all__ = [
    "ComparisonExemplar",
    "ComparisonPrinciple",
    "Constitution",
    "ConstitutionError",
    "CritiqueExemplar",
    "CritiquePrinciple",
    "Problem",
    "draw_comparison",
    "draw_critique",
    "load",
    "loads",
    "render_critique",
    "render_revision",
    "require_published",
    "templates_digest",
]
