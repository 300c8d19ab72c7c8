"""The rooms: which may import which, no circles, and the sizes that keep a page a page."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "common": set(),
    "constitution": {"common"},
    "engines": {"common"},
    "judges": {"common", "constitution", "engines"},
    "training": {"common", "engines"},
    # Its pretraining may use training's helpers; the world, the oracle and the exam stand alone.
    "microworld": {"common", "engines", "training"},
    "flows": {"common", "constitution", "engines", "judges", "training", "microworld"},
    "benchmarks": {"common", "constitution", "engines", "judges", "training", "microworld", "flows"},
    "studies": {
        "common",
        "constitution",
        "engines",
        "judges",
        "training",
        "microworld",
        "flows",
        "benchmarks",
    },
}
"""Each room with those below it: what it may import, for types and inside functions too."""

FLOWS = "__init__ errors cli config runs evaluation labelling stages report pipeline comparison orchestration"
TRAINING = (
    "__init__ errors cli supervised sft reward_model best_of_n config data models run rewards dpo rl "
    # Entrances by name: `python -m training.ppo`.
    "ppo grpo rloo"
)


def modules() -> dict[str, Path]:
    """Every module of the rooms by its dotted name."""
    found = {}
    for room in FLOORS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(name: str) -> Iterator[str]:
    """What a module imports, anywhere in it, as full names."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


ARROWS = {name: set(imported(name)) for name in MODULES}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows[node] & arrows.keys() - {node}:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            circle = sorted(stack[at:])
            del stack[at:]
            if len(circle) > 1:
                found.append(circle)

    for node in arrows:
        if node not in index:
            visit(node)
    return found


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("room", FLOORS)
def test_nothing_imports_upward(room):
    for name, others in ARROWS.items():
        if name.split(".")[0] == room:
            rooms = {other.split(".")[0] for other in others} & FLOORS.keys() - {room}
            assert rooms <= FLOORS[room], f"{name} imports {', '.join(sorted(rooms - FLOORS[room]))}"


def test_no_modules_import_each_other():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles(ARROWS) == []


def test_only_orchestration_imports_prefect():
    # Benchmarks measure Prefect itself.
    for name, others in ARROWS.items():
        uses = {other for other in others if re.match(r"prefect(_\w+)?(\.|$)", other)}
        allowed = name.startswith(("flows.orchestration", "benchmarks"))
        assert allowed or not uses, f"{name} imports {', '.join(sorted(uses))}"


def test_a_file_has_at_most_300_lines():
    assert {name: n for name, path in MODULES.items() if (n := lines(path)) > 300} == {}


@pytest.mark.parametrize(("room", "entries"), [("flows", FLOWS), ("training", TRAINING)])
def test_a_room_has_the_entries_that_contributing_names(room, entries):
    found = {
        path.stem
        for path in (ROOT / room).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found <= set(entries.split())


def test_files_of_flows_are_neither_splinters_nor_slabs():
    sizes = {p: lines(p) for p in (ROOT / "flows").rglob("*.py") if lines(p)}
    assert 100 <= statistics.median(sizes.values()) <= 180
    assert len([p for p, n in sizes.items() if n < 60]) <= 10


def test_flows_pass_types_and_not_anonymous_dicts():
    loose = re.compile(r"(dict|Mapping)\[str, Any\]")
    files = (ROOT / "flows").rglob("*.py")
    assert sum(bool(loose.search(line)) for p in files for line in p.read_text().splitlines()) <= 120


@pytest.mark.parametrize(
    "module",
    [
        "common",
        "constitution",
        "engines",
        "judges",
        "training",
        "flows",
        "flows.cli",
        "flows.cli.run",
        "flows.config",
        "flows.stages.registry",
    ],
)
def test_imports_neither_torch_nor_prefect(module):
    script = (
        f"import sys, {module}; heavy = [m for m in ('torch', 'transformers', 'prefect') if m in sys.modules]; "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"import {module} loads {done.stderr.strip()}"
