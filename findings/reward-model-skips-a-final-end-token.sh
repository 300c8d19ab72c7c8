#!/usr/bin/env bash
# transformers 5.19.0, torch 2.13.0, seen 2026-12-01: a sequence classifier whose pad token is its end token reads its
# score one token early. LlamaForSequenceClassification looks for the last token that is not the pad token and never at
# attention_mask, so an answer that ends with the end token, all of its mask 1, gets the score of the answer without it:
# difference 0.0. With another pad token the same weights give the same ids another score.
# Fails (exit 1) when that changes. Takes about three minutes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.19.0
cat >"$folder/score.py" <<'PY'
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

END, OTHER = 2, 0
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    num_labels=1,
    eos_token_id=END,
    pad_token_id=END,
    initializer_range=0.3,
)
model = LlamaForSequenceClassification(config).eval()


def score(ids, pad):
    model.config.pad_token_id = pad
    ids = torch.tensor([ids])
    with torch.no_grad():
        return float(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0])


answer = [5, 9, 17, 33]
without, ended = score(answer, END), score([*answer, END], END)
right = score([*answer, END], OTHER)
print(f"pad is end: without end {without:.4f}, with end {ended:.4f}; another pad: with end {right:.4f}")
raise SystemExit(0 if abs(without - ended) < 1e-6 and abs(right - ended) > 1e-2 else 1)
PY
"$folder/venv/bin/python" "$folder/score.py"
