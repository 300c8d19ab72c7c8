"""Tiny tokenizers and chat templates in the shapes that public models have (own texts, own vocabularies)."""

from __future__ import annotations

import json

TEXTS = [
    "x A x B x C x D A B C D",
    "The kettle is on the stove and the tea is ready.",
    "Human: Assistant: user assistant system A B C D yes no",
    "Which answer is better? Answer with one letter. (A) (B)",
    "one two three four five six seven eight nine ten",
    "<|user|> <|end|> [INST] [/INST] im_start im_end model turn think",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,;:!?'\"()[]{}<>|/\\-_=+*&^%$#@~`\n",
] * 3

TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "zephyr": "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    # Mistral's first: no system turn, no header, a space before an answer; Llama 2's has one after it, too.
    "inst": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant roles') }}{% endif %}{% endfor %}",
    "newline": "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '\n' + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    # Llama 3's first: trims, and writes the next header whether asked or not.
    "trims": "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content | trim + '<|im_end|>' }}"
    "{% endfor %}{{ '<|assistant|>' }}",
    # Gemma's: roles take turns, the assistant is the model.
    "gemma": "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}",
    # Phi 3's first: a system turn is dropped without a word.
    "drops": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '<|user|>\n' + m.content + '<|im_end|>\n<|assistant|>\n' }}"
    "{% elif m.role == 'assistant' %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}",
    # Alpaca's: no token ends a turn.
    "alpaca": "{% for m in messages %}{% if m.role == 'assistant' %}{{ '### Response:\n' + m.content + '\n\n' }}"
    "{% else %}{{ '### Instruction:\n' + m.content + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
    "transcript": None,
}
# Qwen 3's: earlier turns without their thought, the last with one, if an empty one.
QWEN3 = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{%- set r = '' %}{%- set c = m.content %}"
    "{%- if '</think>' in c %}{%- set r = c.split('</think>')[0].split('<think>')[-1] %}"
    "{%- set c = c.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.last %}{{- '<|im_start|>assistant\n<think>\n' + r.strip('\n') + '\n</think>\n\n' + c }}"
    "{%- else %}{{- '<|im_start|>assistant\n' + c }}{%- endif %}{{- '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
    "{%- endif %}{%- endif %}"
)
# DeepSeek R1's: the generation prompt opens a thought, and no argument closes it.
R1 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1] + eos_token }}{% else %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
# gpt-oss's: an answer is in a channel of its own, which the model writes.
HARMONY = (
    "{{ '<|im_start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '<|im_end|>' }}"
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ eos_token if loop.last else '<|im_end|>' }}{% else %}"
    "{{ '<|im_start|>' + m.role + '<|message|>' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
SPECIALS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|channel|>", "<|message|>"]
KINDS = ("bytes", "bytes_bos", "first", "always", "legacy")


def make(kind: str, template: str | None):
    """A tokenizer: byte-level BPE (`bytes_bos`: with Llama 3's post-processor), or SentencePiece's pieces, which begin
    words with a space at the first word, after every control token, or as older files write it in the normalizer."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    if kind.startswith("bytes"):
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
        )
        raw.train_from_iterator(TEXTS, trainer)
        if kind == "bytes_bos":
            raw.post_processor = processors.Sequence(
                [
                    processors.ByteLevel(trim_offsets=False),
                    processors.TemplateProcessing(
                        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
                    ),
                ]
            )
    else:
        raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        raw.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme="always" if kind == "legacy" else kind, split=True
        )
        raw.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(content=" ", left=1),
            ]
        )
        pieces = [f"<0x{i:02X}>" for i in range(256)]
        alphabet = sorted({c for text in TEXTS for c in text} | {"▁"})
        trainer = trainers.BpeTrainer(
            vocab_size=900,
            special_tokens=[*SPECIALS, *pieces],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        raw.train_from_iterator(TEXTS, trainer)
        state = json.loads(raw.to_str())
        state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in SPECIALS]
        raw = Tokenizer.from_str(json.dumps(state))
        if kind == "legacy":
            raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            raw.pre_tokenizer = None
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    raw.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer
