"""Sampling from a vLLM server whose weights are replaced between steps.

The server reads the new weights from a directory that both sides see, or gets them by NCCL. It must have been
started from a copy made by `training.rollouts.export`, with VLLM_SERVER_DEV_MODE=1, on an address that only trusted
processes reach: that mode lets a client call into the server's workers. Log-probabilities are the server's, before
temperature and nucleus.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from common.chat import decode_response, stop_token_ids
from training.errors import TrainingError
from training.models.policy import without_adapter
from training.rollouts.export import save_untied, served_weights
from training.rollouts.nccl import NCCLGroup, NCCLTransfer
from training.rollouts.protocol import Completion, Sampling

PROMPTS_PER_REQUEST = 256


class VLLMEngine:
    """Rollouts over HTTP. `weights_dir` is where `update_weights` leaves the policy for the server to read; with
    a `group` it goes by NCCL.

    Raises TrainingError when the server cannot be reached, answers with an error or serves no model.
    """

    def __init__(
        self,
        base_url: str,
        tokenizer: Any,
        *,
        weights_dir: Path,
        group: NCCLGroup | None = None,
        timeout: float = 600.0,
    ) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.tokenizer = tokenizer
        self.weights_dir = Path(weights_dir)
        self._client = httpx.Client(timeout=httpx.Timeout(timeout, connect=10.0), trust_env=False)
        served = self._call("GET", "/v1/models")["data"]
        if not served:
            raise TrainingError(f"{self.base_url}: the server has no model")
        self.model: str = served[0]["id"]
        self.context: int = served[0]["max_model_len"]
        self._transfer = NCCLTransfer(self._call, group) if group is not None else None

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, rows: Sequence[int]
    ) -> list[Completion]:
        """One completion per encoded prompt, in order. Raises TrainingError when the server fails."""
        results: list[Completion | None] = [None] * len(prompts)
        # Requests share one seed and one length limit, so prompts are grouped by both: copies of a prompt
        # under one seed would all get the same answer.
        batches: dict[tuple[int, int], list[int]] = {}
        copies: dict[tuple[int, ...], int] = {}
        for index, prompt in enumerate(prompts):
            room = min(sampling.max_new_tokens, self.context - len(prompt))
            if room <= 0:
                results[index] = Completion(
                    text="", token_ids=(), logprobs=(), finish_reason="prompt_too_long"
                )
                continue
            copy = copies[tuple(prompt)] = copies.get(tuple(prompt), -1) + 1
            batches.setdefault((room, copy), []).append(index)
        for (room, copy), members in batches.items():
            for start in range(0, len(members), PROMPTS_PER_REQUEST):
                chunk = members[start : start + PROMPTS_PER_REQUEST]
                answers = self._complete(
                    [list(prompts[index]) for index in chunk],
                    room,
                    sampling,
                    (seed * 1_000_003 + rows[0]) * 1_000_003 + copy,
                )
                for index, answer in zip(chunk, answers, strict=True):
                    results[index] = answer
        return [result for result in results if result is not None]

    def update_weights(self, model: Any) -> None:
        """Have the server load `model` (its adapters merged); cached prefixes are dropped."""
        policy = without_adapter(model)
        if self._transfer is not None:
            self._transfer.send(served_weights(policy))
        else:
            save_untied(policy, self.tokenizer, self.weights_dir)
            self._call(
                "POST",
                "/collective_rpc",
                {"method": "reload_weights", "kwargs": {"weights_path": str(self.weights_dir.resolve())}},
            )
        self._call("POST", "/reset_prefix_cache")

    def close(self) -> None:
        if self._transfer is not None:
            self._transfer.close()
        self._client.close()

    def _complete(
        self, prompts: list[list[int]], room: int, sampling: Sampling, seed: int
    ) -> list[Completion]:
        body = {
            "model": self.model,
            "prompt": prompts,
            "max_tokens": room,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            # What is left out the server would take from the model's generation_config.json.
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "ignore_eos": True,
            "seed": seed % 2**63,
            "logprobs": 0,
            "return_token_ids": True,
            "stop_token_ids": list(stop_token_ids(self.tokenizer)),
        }
        choices = sorted(self._call("POST", "/v1/completions", body)["choices"], key=lambda c: c["index"])
        results = []
        for choice in choices:
            ids = choice["token_ids"]
            stopped = choice["finish_reason"] == "stop"
            results.append(
                Completion(
                    text=decode_response(self.tokenizer, ids[:-1] if stopped else ids),
                    token_ids=tuple(ids),
                    logprobs=tuple(choice["logprobs"]["token_logprobs"]),
                    finish_reason="stop" if stopped else "length",
                )
            )
        return results

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            response = self._client.request(method, self.base_url + path, json=body)
        except httpx.HTTPError as error:
            raise TrainingError(
                f"{self.base_url}: the vLLM server did not answer: {error or type(error).__name__}"
            ) from error
        if response.status_code >= 400:
            hint = ""
            if response.status_code == 404 and not path.startswith("/v1/"):
                hint = "; start it with VLLM_SERVER_DEV_MODE=1"
            raise TrainingError(
                f"{self.base_url}{path}: HTTP {response.status_code}: {response.text[:200]!r}{hint}"
            )
        return response.json() if response.content else None
