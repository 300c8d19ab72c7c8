"""The bodies that go over the wire, for each of the API's ways.

Every body states every field that decides a draw: what is left out, vLLM takes from the model's
generation_config.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engines.defusing import defused
from engines.protocol import Request, Sampling

# The most that vLLM and most others list by default.
TOP_LOGPROBS = 20
_ONE_TOKEN = Sampling(max_new_tokens=1, temperature=0.0)
EXTENSIONS = frozenset(
    (
        "add_special_tokens",
        "chat_template_kwargs",
        "ignore_eos",
        "logprob_token_ids",
        "min_p",
        "repetition_penalty",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "stop_token_ids",
        "top_k",
    )
)
"""vLLM's fields beyond OpenAI's own API; a strict server refuses them by name."""


def sampling_fields(sampling: Sampling, *, seed: int, stop_ids: Sequence[int]) -> dict[str, Any]:
    """All that decides a draw."""
    return {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "seed": seed % 2**63,
        "stop_token_ids": [*stop_ids, *(i for i in sampling.stop_ids if i not in stop_ids)],
    }


def tokens_body(prompts: Sequence[Sequence[int]], option_ids: Sequence[int]) -> dict[str, Any]:
    """`/completions`, token ids in; vLLM lists exactly `option_ids`, other servers their likeliest tokens."""
    return {
        "prompt": [list(ids) for ids in prompts],
        **sampling_fields(_ONE_TOKEN, seed=0, stop_ids=()),
        "logprobs": TOP_LOGPROBS,
        "logprob_token_ids": list(option_ids),
        "return_tokens_as_token_ids": True,
        "add_special_tokens": False,
    }


def continuation_body(prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """`/completions` that scores its own prompts: nothing is generated, every prompt token has its logprob."""
    fields = sampling_fields(_ONE_TOKEN, seed=0, stop_ids=())
    return {"prompt": [list(ids) for ids in prompts], **fields, "max_tokens": 0, "echo": True, "logprobs": 1}


def text_body(requests: Sequence[Request]) -> dict[str, Any]:
    """`/completions`, text in."""
    return {
        "prompt": [defused(request.text or "") for request in requests],
        **sampling_fields(_ONE_TOKEN, seed=0, stop_ids=()),
        "logprobs": TOP_LOGPROBS,
    }


def chat_body(request: Request) -> dict[str, Any]:
    """`/chat/completions`, one conversation."""
    return {
        "messages": _messages(request),
        **_thinking(request),
        **sampling_fields(_ONE_TOKEN, seed=0, stop_ids=()),
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
    }


def writing_body(requests: Sequence[Request], *, stop_ids: Sequence[int]) -> dict[str, Any]:
    """A request for text: `/completions` of token ids or texts, or `/chat/completions` of one conversation."""
    first = requests[0]
    assert first.write is not None
    body = sampling_fields(first.write, seed=first.seed, stop_ids=stop_ids)
    if first.ids is not None:
        body |= {"prompt": [list(request.ids or ()) for request in requests], "add_special_tokens": False}
    elif first.text is not None:
        body["prompt"] = [defused(request.text or "") for request in requests]
    else:
        body |= {"messages": _messages(first), **_thinking(first)}
    if first.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": dict(first.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def completion_body(
    prompt: Sequence[int], sampling: Sampling, *, seed: int, stop_ids: Sequence[int]
) -> dict[str, Any]:
    """`/completions` of one prompt with its own seed: prompts of a list would all draw from one stream of noise."""
    return {
        "prompt": list(prompt),
        **sampling_fields(sampling, seed=seed, stop_ids=stop_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
        "add_special_tokens": False,
    }


def _thinking(request: Request) -> dict[str, Any]:
    """Whether the template is to let the model think, under the names that templates know."""
    if request.thinking is None:
        return {}
    return {"chat_template_kwargs": {"enable_thinking": request.thinking, "thinking": request.thinking}}


def _messages(request: Request) -> list[dict[str, str]]:
    return [{"role": m["role"], "content": defused(m["content"])} for m in request.messages]
