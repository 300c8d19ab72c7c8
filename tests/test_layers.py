"""The arrows between the rooms: who may import whom, and who stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "constitution", "engines", "judges", "training", "flows", "microworld")

ALLOWED = {
    "common": set(),
    "constitution": {"common"},
    "engines": {"common"},
    "judges": {"common", "constitution", "engines"},
    "training": {"common", "engines"},
    "flows": {"common", "constitution", "engines", "judges", "training", "microworld"},
    # Its pretraining may use training's helpers; the world, the oracle and the exam stand alone.
    "microworld": {"common", "training"},
}


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_their_arrows_allow(room):
    for path in sorted((ROOT / room).rglob("*.py")):
        others = imports(path) & set(ROOMS) - {room}
        assert others <= ALLOWED[room], (
            f"{path.relative_to(ROOT)} imports {', '.join(others - ALLOWED[room])}"
        )


@pytest.mark.parametrize("room", ROOMS)
def test_only_flows_imports_prefect(room):
    for path in sorted((ROOT / room).rglob("*.py")):
        uses = {name for name in imports(path) if name.split("_")[0] == "prefect"}
        assert room == "flows" or not uses, f"{path.relative_to(ROOT)} imports {', '.join(uses)}"


@pytest.mark.parametrize(
    "module",
    [
        "constitution",
        "engines",
        "judges",
        "training",
        "flows",
        "flows.cli",
        "flows.cli.run",
        "flows.config",
        "flows.stages",
    ],
)
def test_imports_neither_torch_nor_prefect(module):
    script = (
        f"import sys, {module}; heavy = [m for m in ('torch', 'transformers', 'prefect') if m in sys.modules]; "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"import {module} loads {done.stderr.strip()}"
