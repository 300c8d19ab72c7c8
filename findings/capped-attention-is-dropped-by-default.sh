#!/usr/bin/env bash
# transformers 5.19.0 with torch 2.13.0: a config that asks for capped attention scores (attn_logit_softcapping, as Gemma 2
# and VaultGemma have) is loaded with the attention implementation "sdpa" when none is named, and that one leaves the cap
# out without a word: the logits are not those of "eager", which has it. Gemma 3's config has the same field, and its
# attention takes no notice of it under either implementation.
# Seen: gemma2 and vaultgemma differ by more than 0.1 in a logit, gemma3_text by less than 1e-4.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet transformers==5.19.0 safetensors==0.8.0
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import sys

import torch
import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
ids = torch.arange(1, 33)[None]
expected = {"gemma2": True, "vaultgemma": True, "gemma3_text": False}
seen = {}
for kind in expected:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
    )
    config.attn_logit_softcapping = 0.5
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(kind)
    logits = {}
    for asked in (None, "eager"):
        settings = {} if asked is None else {"attn_implementation": asked}
        loaded = transformers.AutoModelForCausalLM.from_pretrained(kind, **settings).eval()
        with torch.no_grad():
            logits[loaded.config._attn_implementation if asked is None else asked] = loaded(ids).logits
    (default, first), (_, eager) = logits.items()
    gap = float((first - eager).abs().max())
    seen[kind] = default == "sdpa" and gap > 0.1
    print(f"{kind}: default attention {default}, largest difference of a logit from eager {gap:.2g}")
sys.exit(0 if seen == expected else "changed: another default, or the cap is obeyed now")
P
