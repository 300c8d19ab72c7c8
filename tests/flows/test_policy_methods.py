"""What a run can be told about reward models, rewards and methods: refusals in one line, and the stages themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from flows.config import load_config
from flows.config.forms import RunRequest
from flows.config.trainers import GRPOSection, PPOSection, PreferenceSection
from flows.errors import FlowError
from flows.pipeline.launch import open_session, run_stages
from flows.runs.progress import Silent
from flows.stages.reward_model import members


@pytest.fixture
def run_yaml(tmp_path, make_run):
    return make_run(tmp_path, tmp_path / "model")


def test_the_default_is_ppo(run_yaml):
    assert isinstance(load_config(run_yaml).rl, PPOSection)
    assert isinstance(load_config(run_yaml, ["rl={method: grpo}"]).rl, GRPOSection)
    assert isinstance(load_config(run_yaml, ["rl={method: simpo, margin: 0.5}"]).rl, PreferenceSection)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["rl={method: pppo}"], "rl: method is one of ppo, grpo, rloo, dpo, robust, ipo, kto, orpo, simpo"),
        (
            ["rl={method: dpo, kl: {beta: 0.1}}"],
            "rl.kl: no such field; known: batch_size, beta, checkpoint_every",
        ),
        (["rl={method: dpo, bta: 0.1}"], "rl.bta: no such field; did you mean beta?"),
        (
            ["rl={method: grpo, value: {clip: 0.1}}"],
            "rl.value: no such field",
        ),
        (["rl={method: grpo, scale: grup}"], "rl.scale: 'grup' is not allowed: Input should be 'group'"),
        (
            ["rl={method: grpo, batch_size: 10}"],
            "batch_size (10) must be a multiple of samples_per_prompt (8)",
        ),
        (["rl={method: ipo, margin: 0.5}"], "margin belongs to loss simpo, not to ipo"),
        (["rl.reward={judge: {principles: 2}}"], "principles: 2 is for kind pairwise; pointwise takes one"),
        (["rl.clips=0.1"], "rl.clips: no such field; did you mean clip?"),
        (["rl.reward={combine: min}"], "rl.reward.combine: min needs reward_model.ensemble above 1"),
        (["rl.reward={model: 0}"], "with weight 0 the reward needs `judge` or `terms`"),
        (
            ["rl.reward={model: 0, terms: [{kind: length}]}"],
            "value.start_from: reward.model is 0, so there is none to start from; set it to policy",
        ),
        (["rl.reward={terms: [{kind: lenght}]}"], "rl.reward.terms.0"),
        (["rl.reward={terms: [{kind: length, free: -1}]}"], "rl.reward.terms.0.free: -1 is not allowed"),
        (["reward_model.human={path: h.jsonl, share: 1.5}"], "reward_model.human.share: 1.5 is not allowed"),
        (
            ["reward_model.human={path: h.jsonl, share: 0.5}", "reward_model.dimensions={polite: 1}"],
            "human pairs and rewrites have none; use either them or `dimensions`",
        ),
    ],
)
def test_a_contradiction_is_one_line(run_yaml, overrides, expected):
    with pytest.raises(FlowError) as caught:
        load_config(run_yaml, overrides)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_within_a_method_names_its_line(run_yaml):
    text = run_yaml.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    config["rl"] = {"method": "rloo", "steps": 0}
    run_yaml.write_text(yaml.safe_dump(config, sort_keys=False))
    line = run_yaml.read_text().splitlines().index("  steps: 0") + 1
    with pytest.raises(FlowError, match=f"run.yaml:{line}: rl.steps: 0 is not allowed"):
        load_config(run_yaml)


def test_what_cannot_work_is_said_before_the_run_starts(run_yaml, tmp_path):
    from flows.pipeline.preflight import check_data
    from flows.stages.rl import STAGE
    from judges import JudgeError

    config = load_config(run_yaml, ["rl.reward={judge: {templates: microworld}}"])
    with pytest.raises(JudgeError, match=r"pointwise\.j2"):
        STAGE.settings(config)
    config = load_config(run_yaml, ["rl.reward={judge: {kind: pairwise, templates: microworld}}"])
    assert STAGE.settings(config)["reward"]["judge"]["kind"] == "pairwise"
    (tmp_path / "human.jsonl").write_text('{"prompt": "a", "chosen": "b"}\n')
    config = load_config(run_yaml, [f"reward_model.human={{path: {tmp_path / 'human.jsonl'}, share: 0.5}}"])
    with pytest.raises(
        FlowError, match=r"^reward_model.human.path: .*human.jsonl:1: .*rejected is missing beside chosen"
    ):
        check_data(config)


def test_members_of_an_ensemble():
    assert [m.name for m in members({}, 1)] == ["model"]
    assert [(m.name, m.number) for m in members({}, 3)] == [("model", 0), ("model_2", 1), ("model_3", 2)]
    found = [(m.name, m.dimension, m.number) for m in members({"kind": 1, "calm": 2}, 2)]
    assert found == [
        ("model", "calm", 0),
        ("model_calm_2", "calm", 1),
        ("model_kind_1", "kind", 0),
        ("model_kind_2", "kind", 1),
    ]


def test_the_judge_is_a_reward_function(tmp_path, monkeypatch):
    """As a trainer calls it: through its name and the file that the stage writes."""
    from common.rows import Prompt
    from constitution import load
    from constitution.snapshot import to_json
    from flows.labelling import reward as judge_reward
    from judges import ScriptedJudge
    from training.config.rewards import FunctionTerm
    from training.rewards.compose import build_reward

    (tmp_path / "tiny.yaml").write_text(CONSTITUTION)
    settings = tmp_path / "judge_reward.json"
    given = {
        "judge": {"kind": "scripted"},
        "templates": "default",
        "constitution": to_json(load(tmp_path / "tiny.yaml")),
        "seed": 0,
        "baselines": None,
        "mass_threshold": 0.5,
    }
    settings.write_text(json.dumps(given))

    def answer(call):
        text = str(call)
        if "awful" in text:
            return "1"
        return "10" if "lovely" in text else "dunno"

    monkeypatch.setattr(judge_reward, "make_judge", lambda section, **_: ScriptedJudge(answer))
    term = FunctionTerm(
        kind="function",
        name="judge",
        weight=2.0,
        function="flows.labelling.reward:score",
        arguments={"settings": str(settings)},
    )
    prompts = [Prompt(id=str(i), prompt=[{"role": "user", "content": "Well?"}]) for i in range(3)]
    scored = build_reward([term])(prompts, ["lovely", "awful", "hm"])
    assert scored.parts["judge"] == [1.0, 0.0, None]
    assert scored.total == [2.0, 0.0, None], "no answer is no reward, and never zero"

    # Against the first answers of the run's pairs.
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": prompts[0].prompt, "a": "plain", "b": "other"}) + "\n")
    settings = tmp_path / "pairwise.json"
    settings.write_text(json.dumps({**given, "baselines": str(pairs), "principles": 1}))

    def compare(call):
        text = call.messages[-1]["content"]
        return 0.75 if text.index("lovely") < text.index("plain") else 0.25

    monkeypatch.setattr(judge_reward, "make_judge", lambda section, **_: ScriptedJudge(compare))
    scores = judge_reward.score([prompts[0].prompt] * 2, ["lovely", "plain"], settings=str(settings))
    assert scores == [pytest.approx(math.log(3)), 0.0]


CONSTITUTION = """\
name: tiny
critique:
  principles:
    - {id: safe, critique_request: Is it safe?, revision_request: Make it safe., dimension: harmless}
comparison:
  principles:
    - {id: safer, question: Which is safer?, dimension: harmless}
"""
HUMAN = "".join(
    json.dumps({"prompt": f"Human question {i}?", "chosen": "Gladly.", "rejected": "No."}) + "\n"
    for i in range(6)
)


def run(path: Path, *changes: str, to_stage: str = "rl"):
    with open_session(RunRequest(config=str(path), changes=changes), Silent()) as session:
        run_stages(session, to_stage=to_stage)
    return session.outcomes


@pytest.mark.long
@pytest.mark.slow
def test_ensembles_human_pairs_dimensions_a_judge_and_dpo(tmp_path, make_run, tiny_model, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = make_run(tmp_path, tiny_model)
    (tmp_path / "human.jsonl").write_text(HUMAN)
    rl = "steps: 1, batch_size: 4, minibatches: 1, max_new_tokens: 8, precision: float32"
    outcomes = run(
        path,
        "reward_model.ensemble=2",
        f"reward_model.human={{path: {tmp_path / 'human.jsonl'}, share: 0.5}}",
        f"rl={{method: grpo, samples_per_prompt: 2, {rl}, reward: {{combine: uncertainty, penalty: 1, "
        "terms: [{kind: length, free: 4, weight: 0.5}]}}",
    )
    trained = outcomes["reward_model"]
    configs = [
        yaml.safe_load((trained.directory / name).read_text())
        for name in ("trainer.yaml", "trainer-model_2.yaml")
    ]
    assert [config["seed"] for config in configs] == [0, 1]
    assert configs[0]["shares"] == [0.5, 0.5] and configs[0]["data"][1].endswith("human.jsonl")
    saved = [json.loads((trained.directory / m / "config.json").read_text()) for m in ("model", "model_2")]
    assert all(config["reward_std"] > 0 for config in saved)
    card = (trained.directory / "model" / "README.md").read_text()
    assert "| run | tiny |" in card and "| constitution | " in card
    labels = outcomes["labels"].manifest.outputs["preferences"].digest
    assert f"| preferences digest | {labels} |" in card
    assert saved[0]["reward_mean"] != saved[1]["reward_mean"]
    policy = yaml.safe_load((outcomes["rl"].directory / "trainer.yaml").read_text())
    assert [part["kind"] for part in policy["rewards"]] == ["ensemble", "length"]
    assert policy["rewards"][0]["combine"] == "uncertainty" and len(policy["rewards"][0]["paths"]) == 2
    assert {"reward_model", "reward_length", "kl_loss"} <= outcomes["rl"].manifest.metrics.keys()

    # Straight from the labels: no reward, no samples on the way.
    outcomes = run(
        path,
        "rl={method: dpo, rewrites: true, batch_size: 4, precision: float32, max_length: 400}",
        to_stage="rl",
    )
    assert outcomes["labels"].reused and "eval_loss" not in outcomes["rl"].manifest.metrics
    written = (outcomes["critique_revision"].directory / "rewrites.jsonl").read_text(encoding="utf-8")
    rewrites = [json.loads(line) for line in written.splitlines()]
    assert rewrites and all(row["chosen"] != row["rejected"] and row["p"] == 1 for row in rewrites)
    policy = yaml.safe_load((outcomes["rl"].directory / "trainer.yaml").read_text())
    assert policy["loss"] == "dpo" and [Path(p).name for p in policy["data"]] == [
        "preferences.jsonl",
        "rewrites.jsonl",
    ]
    assert "margin" in outcomes["rl"].manifest.metrics
    assert (outcomes["rl"].directory / "samples.jsonl").read_text() == ""

    # One reward model for a dimension, and the judge itself, which this nonsense model never answers.
    outcomes = run(
        path,
        "reward_model.dimensions={polite: 2.0}",
        "reward_model.held_out=0",
        f"rl={{method: rloo, samples_per_prompt: 2, {rl}}}",
    )
    policy = yaml.safe_load((outcomes["rl"].directory / "trainer.yaml").read_text())
    assert [(part["name"], part["weight"]) for part in policy["rewards"]] == [("polite", 2.0)]
    with pytest.raises(
        FlowError, match="none of 8 labels is of dimension honest alone; the constitution has concise"
    ):
        run(path, "reward_model.dimensions={honest: 1}")
    with pytest.raises(FlowError, match="none of 4 responses has a reward: 4 could not be scored"):
        run(path, f"rl={{method: rloo, samples_per_prompt: 2, {rl}, reward: {{model: 0, judge: {{}}}}}}")

    # The same judge against the SL-CAI model's own answers: it does compare, if only by the slot.
    judge = "{kind: pairwise, templates: microworld, principles: 2}"
    outcomes = run(
        path, f"rl={{method: rloo, samples_per_prompt: 2, {rl}, reward: {{model: 0, judge: {judge}}}}}"
    )
    assert outcomes["rl"].manifest.metrics["missing_rewards"] < 4
