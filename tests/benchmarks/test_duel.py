"""The benchmarks' own arithmetic: turns, operations, the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


SCRIPT = """
from benchmarks.harness import duel

def steady(folder):
    count = iter([9.0, 3.0, 1.0, 2.0])  # the first is the warm-up
    def play(steps):
        print("a library prints")
        with (folder / "turns").open("a") as file:
            file.write("w" if steps else "s")
        return {"seconds": next(count), "losses": [0.5]}
    return play

def broken(folder):
    raise SystemExit(3)

options = duel.arguments("A test.", size=1, unit="turns")
duel.serve({"steady": steady, "other": steady, "broken": broken}[options.side], options.folder)
"""


def test_sides_take_turns_and_medians_are_reported(tmp_path, capsys):
    from benchmarks.harness import duel

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found = duel.compete(str(script), ["steady", "other"], tmp_path, rounds=3)
    assert (tmp_path / "turns").read_text() == "ww" + "ss" * 3
    for side in found.values():
        assert side["seconds"] == [3.0, 1.0, 2.0]
        assert (side["median_s"], side["losses"]) == (2.0, [0.5])
        assert side["peak_mb"] >= 1
    assert duel.speeds(found, 10) == {"steady": 5.0, "other": 5.0}
    with pytest.raises(SystemExit, match="broken: ended with exit code 3"):
        duel.compete(str(script), ["broken"], tmp_path, rounds=1)


def test_bytes_read_while_sampling_are_those_of_every_step():
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks.harness.roofline import decoding_bytes

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    prompts, answers = [5, 2, 9], [4, 1, 3]
    seen = sum(prompt + t for prompt, answer in zip(prompts, answers, strict=True) for t in range(answer))
    model = LlamaForCausalLM(config)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    weights, cached = decoding_bytes(config, prompts, answers, at_once=3)
    assert weights == 4 * matrices * 3  # eight tokens, three rows a step
    assert cached == seen * 3 * 2 * (2 * 4) * 4  # layers, keys and values, units, bytes


def test_operations_are_those_that_torch_counts():
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks.harness.roofline import Work, flops

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(torch.zeros(3, 10, dtype=torch.long))
    # torch counts attention's whole square, ours the causal half; the rotary angles are a product too.
    angles = 3 * 2 * 10 * (32 // 4 // 2)
    work = Work.of_rows([10] * 3, head_tokens=30)
    whole = Work(tokens=30, head_tokens=30, squares=2 * work.squares)
    assert counted.get_total_flops() - flops(config, whole, passes=1.0) in (0, angles, angles / 3)


def test_padded_work_counts_both_answers_of_a_batch_s_longest():
    from benchmarks.harness import pairs
    from training.data.packing import Tree
    from training.data.pairs import PairItem

    items = [
        PairItem(id=str(n), tree=Tree(prefix=(1,) * (10 + n), branches=((1,) * 4, (1,) * 2)), p=1.0)
        for n in range(3)
    ]
    found = pairs.work(items, head=True)
    assert found["ours"].tokens == sum(10 + n + 6 for n in range(3))
    assert found["trl_defaults"].tokens == 6 * (12 + 4)
    assert found["ours"].head_tokens == found["trl_defaults"].head_tokens == 18


def test_the_page_s_table_comes_from_the_results(tmp_path, monkeypatch):
    from benchmarks.harness import page

    result = json.loads((BENCHMARKS / "results" / "reward_model.json").read_text())
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    (tmp_path / "reward_model.json").write_text(json.dumps(result))
    page.write()
    lines = (tmp_path / "page.md").read_text().split("\n")
    assert (lines[0], lines[-2]) == ("before", "after")
    assert "old" not in lines
    first = next(line for line in lines if line.startswith("| Reward model"))
    assert f"**{result['ratio']:.2f}**" in first
    assert "TRL, defaults" in first
    page.write()
    assert (tmp_path / "page.md").read_text().split("\n") == lines


def test_a_side_that_is_not_measured_keeps_its_last_figures():
    from benchmarks.peers import judge_throughput

    rounds = [{"ours": 10.0, "labelling": 9.0, "one_each": 4.0, "bare_loop": 10.0, "offline": 5.0}]
    with_peer = [rounds[0] | {"distilabel": 5.0}]
    machine, versions = {"date": "2026-11-21"}, {"distilabel": "1.5.3"}
    first = judge_throughput.summary(with_peer) | {
        "not_measured": judge_throughput.not_measured(with_peer, {})
    }
    assert first["not_measured"] == {} and "distilabel" in first["targets"]
    before = first | {"machine": machine, "versions": versions}
    kept = {"distilabel": {"date": "2026-11-21", "version": "1.5.3", "per_s": 5.0, "ratio": 2.0}}
    assert judge_throughput.not_measured(rounds, before) == kept
    again = judge_throughput.summary(rounds) | {
        "not_measured": kept,
        "machine": {"date": "later"},
        "versions": {},
    }
    assert "distilabel" not in again["ratios"]
    assert judge_throughput.not_measured(rounds, again) == kept
    assert judge_throughput.not_measured(rounds, {}) == {"distilabel": None}


def test_every_result_names_its_pair_and_versions():
    names = ("judge_throughput", "judge_throughput_prefix", "kill_labelling", "ledger_scale", "dpo", "sft")
    for name in names:
        result = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text())
        assert result["what"] and result["versions"] and result["machine"]["date"]
        assert result["ratio"] == pytest.approx(result["ours"] / result["peer"], rel=0.1)
