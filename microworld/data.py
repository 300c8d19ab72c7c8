"""The microworld as files: demonstrations and prompts, as a user's own project would bring them."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from microworld.responses import Answer, Core, make_answer
from microworld.world import Family, Request, Sampler, Split

#: how often each family is asked, by purpose
SHARES: dict[str, dict[Family, float]] = {
    "demonstrations": {"howto": 0.34, "harmful": 0.2, "scary": 0.2, "fact": 0.12, "flattery": 0.14},
    "sl": {"harmful": 0.38, "howto": 0.2, "scary": 0.22, "fact": 0.08, "flattery": 0.12},
    "rl": {"harmful": 0.32, "howto": 0.2, "scary": 0.26, "fact": 0.08, "flattery": 0.14},
    "eval": {"harmful": 0.36, "howto": 0.18, "scary": 0.22, "fact": 0.08, "flattery": 0.16},
}
#: what a helpful-only assistant does: whatever it is asked, and mostly what pleases
HELPFUL_ONLY: dict[Family, dict[Core, float]] = {
    "howto": {"full": 1.0},
    "scary": {"full": 1.0},
    "harmful": {"comply": 1.0},
    "fact": {"right": 1.0},
    "flattery": {"agree": 0.7, "correct": 0.3},
}


@dataclass(frozen=True, kw_only=True)
class WorldSizes:
    """How many rows of each file."""

    demonstrations: int = 1200
    sl: int = 1000
    rl: int = 1600
    eval: int = 560


def write_world(out_dir: Path, *, seed: int, sizes: WorldSizes | None = None) -> dict[str, Path]:
    """Write demonstrations.jsonl and prompts_{sl,rl,eval}.jsonl; returns their paths by name.

    Demonstrations and the prompts that train (sl, rl) are of the training split, those of eval of the held-out one.
    The same seed writes the same bytes.
    """
    sizes = sizes or WorldSizes()
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = {"demonstrations": out_dir / "demonstrations.jsonl"}
    rng = random.Random(f"demonstrations:{seed}")
    asked = requests("demonstrations", sizes.demonstrations, seed=seed)
    _write(
        paths["demonstrations"],
        (
            {"id": f"demo-{i:05d}-{_short(r.text)}", "messages": [_user(r), _assistant(_helpful(r, rng))]}
            for i, r in enumerate(asked)
        ),
    )
    for purpose, n in (("sl", sizes.sl), ("rl", sizes.rl), ("eval", sizes.eval)):
        paths[f"prompts_{purpose}"] = out_dir / f"prompts_{purpose}.jsonl"
        rows = (
            {
                "id": f"{purpose}-{i:05d}-{_short(r.text)}",
                "prompt": [_user(r)],
                "meta": {"family": r.family, "split": r.split},
            }
            for i, r in enumerate(requests(purpose, n, seed=seed))
        )
        _write(paths[f"prompts_{purpose}"], rows)
    return paths


def requests(purpose: str, n: int, *, seed: int) -> list[Request]:
    """`n` requests in the purpose's shares (exact up to rounding), shuffled."""
    split: Split = "heldout" if purpose == "eval" else "train"
    sampler = Sampler(split, f"{purpose}:{seed}")
    shares = SHARES[purpose]
    counts = {f: int(n * share) for f, share in shares.items()}
    counts["harmful"] += n - sum(counts.values())
    found = [sampler.draw(f) for f, count in counts.items() for _ in range(count)]
    sampler.rng.shuffle(found)
    return found


def _helpful(request: Request, rng: random.Random) -> Answer:
    cores = HELPFUL_ONLY[request.family]
    core = rng.choices(list(cores), weights=list(cores.values()))[0]
    return make_answer(request, core, rng, manners=(0.25, 0.12), padded=0.3)


def _user(request: Request) -> dict[str, str]:
    return {"role": "user", "content": request.text}


def _assistant(answer: Answer) -> dict[str, str]:
    return {"role": "assistant", "content": answer.render()}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _write(path: Path, rows: Iterable[dict]) -> None:
    beside = path.with_suffix(".tmp")
    with beside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(beside, path)
