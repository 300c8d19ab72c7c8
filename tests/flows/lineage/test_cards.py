"""The cards that a run leaves: lineage, evaluation, audit, in the hub's form, and manifests that stay true."""

from __future__ import annotations

from dataclasses import replace

from huggingface_hub import ModelCard

from flows.report.model_cards import write_cards
from flows.report.summary import Summary
from flows.runs.digests import digest_path
from flows.runs.directory import RunDirectory
from flows.runs.store import RunStore


def test_cards_are_written_again_beside_the_models_and_at_the_runs_url(built, tmp_path):
    session, _ = built
    for stage in ("reward_model", "rl"):
        folder = session.outcomes[stage].directory / "model"
        (folder / "config.yaml").write_text("{model: organisation/base-7b, metadata: {constitution: old}}")
        (folder / "result.json").write_text('{"method": "GRPO", "steps": 3, "metrics": {"kl": 2.0}}')
    estimate = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 40}
    same = {"hits": 4, "of": 4, "share": 1.0, "low": 0.5, "high": 1.0}
    people = {"pairs": 4, "failed": 0, "same": same, "kappa": estimate, "alpha": estimate, "reviewers": {}}
    summary = Summary.from_json(
        {
            "name": "tiny",
            "seed": 0,
            "constitution": {"ref": "tiny", "published": False, "digest": "0"},
            "models": {
                "rl_cai": {
                    "words": {**estimate, "value": None},
                    "reward": {**estimate, "value": None},
                    "gold": {"harmless": estimate},
                }
            },
            "judge": {},
            "revision": {},
            "side_effects": {},
            "reward_model": {"gold_agreement": estimate},
            "audit": {**people, "problem": None},
            "rl": {},
            "stages": {},
            "seconds": 1.0,
            "peak_memory_bytes": 1,
        }
    )
    remote = tmp_path / "remote" / "tiny"
    stored = replace(session, directory=RunDirectory(session.directory.path, RunStore(f"file://{remote}")))
    reward, policy = write_cards(stored, summary)
    for path in (reward, policy):
        assert (remote / path.relative_to(session.directory.path)).read_text() == path.read_text()
        card = ModelCard.load(path)
        assert card.data.base_model == "organisation/base-7b"
        assert "| constitution | tiny (working file " in card.text
        assert (
            "| people | 2 labels confirmed, 2 overridden |" in card.text
            and "| judge | scripted, revision 1" in card.text
        )
        assert "people judged 4 pairs, kappa with the judge 0.90 (0.80-0.95)" in card.text
    figures = [
        (r.dataset_name, r.metric_name, r.metric_value) for r in ModelCard.load(reward).data.eval_results
    ]
    assert figures == [
        ("held-out labels", "accuracy", 0.75),
        ("held-out prompts", "agreement with gold", 0.9),
    ]
    assert [r.metric_name for r in ModelCard.load(policy).data.eval_results] == ["harmless"]
    for stage in ("reward_model", "rl"):
        made = session.outcomes[stage]
        assert digest_path(made.directory / "model") == made.manifest.outputs["model"].digest

    reused = {name: replace(outcome, reused=True) for name, outcome in session.outcomes.items()}
    assert write_cards(replace(stored, outcomes=reused), replace(summary, models={})) == []
