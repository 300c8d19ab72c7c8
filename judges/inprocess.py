"""A judge inside this process: a Hugging Face causal language model on the CPU or a GPU.

Prompts are sorted by length and padded on the right: attention is causal, so no real token sees the padding,
no mask is needed and the fast attention path is taken. Logits are computed only at the last positions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common.digest import digest_files
from judges.asking.readout import checked, without_extensions
from judges.errors import JudgeError
from judges.generation import generate
from judges.records import Call, JudgeIdentity, Reading, Sampling

if TYPE_CHECKING:
    from judges.encoding import CallEncoder

# What a model folder's answers depend on; a README beside the weights does not change them.
WEIGHT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


class InProcessJudge:
    """Reads option probabilities off a local model. Loads on the first call; `tokens_per_batch` bounds memory."""

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        tokens_per_batch: int = 4096,
    ) -> None:
        """`model` is a folder in Hugging Face format. Raises JudgeError when it is not."""
        self._path = Path(model)
        if not (self._path / "config.json").is_file():
            raise JudgeError(f"no model in {self._path}: expected a Hugging Face folder with config.json")
        if not any(self._path.glob("*.safetensors")):
            raise JudgeError(f"no *.safetensors in {self._path}: only safetensors weights are loaded")
        self._device, self._dtype, self._tokens_per_batch = device, dtype, tokens_per_batch
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()
        self._identity: JudgeIdentity | None = None

    @property
    def identity(self) -> JudgeIdentity:
        """The folder's name, and as revision the digest of its weights, configuration and tokenizer."""
        if self._identity is None:
            from importlib.metadata import version

            build = f"transformers {version('transformers')}, torch {version('torch')}"
            self._identity = JudgeIdentity(
                kind="in-process",
                model=self._path.resolve().name,
                revision=model_revision(self._path),
                build=build,
            )
        return self._identity

    def ask(self, calls: Sequence[Call]) -> list[Reading]:
        """One reading per call. Prompts longer than the model's context are "truncated", never cut.

        Threads take turns: the model uses all cores for each.
        """
        if not calls:
            return []
        with self._lock:
            if self._loaded is None:
                self._loaded = _Loaded(self._path, self._device, self._dtype)
            return self._loaded.ask(calls, self._tokens_per_batch)


def model_revision(folder: Path) -> str:
    """Digest of the files in a model folder that determine what the model answers."""
    return digest_files({p.name: p for pattern in WEIGHT_FILES for p in folder.glob(pattern)})


class _Loaded:
    """The model in memory."""

    def __init__(self, path: Path, device: str, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from judges.encoding import CallEncoder

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto":
            dtype = "bfloat16" if device != "cpu" or _fast_bfloat16_cpu() else "float32"
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise JudgeError(f"{path}: cannot load the model: {str(error).splitlines()[0]}") from error
        self.model: Any = model.eval()
        self.model.to(device)
        _float32_head(self.model)
        self.device = device
        self.encoder: CallEncoder = CallEncoder(self.tokenizer)
        config = model.config.get_text_config()
        self.context: int = getattr(config, "max_position_embeddings", None) or 2**31
        self.padding: int = self.tokenizer.pad_token_id or 0

    def ask(self, calls: Sequence[Call], tokens_per_batch: int) -> list[Reading]:
        writing = [n for n, call in enumerate(calls) if call.write is not None]
        if not writing:
            return self._read(calls, tokens_per_batch)
        reading = [n for n, call in enumerate(calls) if call.write is None]
        found = dict(zip(reading, self._read([calls[n] for n in reading], tokens_per_batch), strict=True))
        found |= dict(zip(writing, self._write([calls[n] for n in writing], tokens_per_batch), strict=True))
        return [found[n] for n in range(len(calls))]

    def _write(self, calls: Sequence[Call], tokens_per_batch: int) -> list[Reading]:
        """Texts; one that does not end within its tokens is "truncated", half a thought being another thought."""
        if any(call.verdict for call in calls):
            raise JudgeError("readout: an in-process judge has log probabilities; set readout: logprobs")
        started = time.perf_counter()
        prompts = self.encoder.encode(calls)
        readings: list[Reading | None] = [None] * len(calls)
        groups: dict[Sampling, list[int]] = {}
        for n, (call, ids) in enumerate(zip(calls, prompts, strict=True)):
            assert call.write is not None
            if len(ids) + call.write.max_tokens > self.context:
                detail = f"prompt and rationale may have {len(ids) + call.write.max_tokens} tokens, the model takes "
                readings[n] = Reading(status="truncated", detail=f"{detail}{self.context}")
            else:
                groups.setdefault(call.write, []).append(n)
        for sampling, numbers in groups.items():
            numbers.sort(key=lambda n: len(prompts[n]))
            size = max(1, tokens_per_batch // (len(prompts[numbers[-1]]) + sampling.max_tokens))
            for at in range(0, len(numbers), size):
                batch = numbers[at : at + size]
                texts = generate(
                    self.model, self.tokenizer, [prompts[n] for n in batch], sampling, padding=self.padding
                )
                for n, written in zip(batch, texts, strict=True):
                    readings[n] = Reading(
                        status="ok" if written.ended else "truncated",
                        text=written.text,
                        detail=None
                        if written.ended
                        else f"the rationale did not end in {sampling.max_tokens} tokens",
                        prompt_tokens=len(prompts[n]),
                        completion_tokens=written.tokens,
                    )
        latency = (time.perf_counter() - started) / len(calls)
        return [replace(r, latency_s=latency) for r in readings if r is not None]

    def _read(self, calls: Sequence[Call], tokens_per_batch: int) -> list[Reading]:
        if not calls:
            return []
        started = time.perf_counter()
        prompts = self.encoder.encode(calls)
        readings: list[Reading | None] = [None] * len(calls)
        rows: list[_Row] = []
        for n, (call, prompt) in enumerate(zip(calls, prompts, strict=True)):
            mine = self._rows(n, call, prompt)
            longest = max(len(row.ids) for row in mine)
            if not prompt or longest > self.context:
                detail = f"prompt and answer have {longest} tokens, the model takes {self.context}"
                readings[n] = Reading(status="truncated", detail=detail, prompt_tokens=len(prompt))
            else:
                rows.extend(mine)
        logprobs: dict[int, list[float]] = {}
        answers: dict[int, list[list[int]]] = {}
        for row in rows:
            if row.forms is None:
                answers.setdefault(row.call, []).append(row.ids[row.start :])
        for batch in _batches(sorted(rows, key=lambda row: (len(row.ids), row.call)), tokens_per_batch):
            for row, values in zip(batch, self._score(batch), strict=True):
                per_option = logprobs.setdefault(row.call, [0.0] * len(calls[row.call].options))
                per_option[row.first : row.first + len(values)] = values
        latency = (time.perf_counter() - started) / len(calls)
        for n, values in logprobs.items():
            whole = answers.get(n)
            reading = Reading(
                status="ok",
                logprobs=without_extensions(values, whole) if whole else tuple(values),
                prompt_tokens=len(prompts[n]),
                completion_tokens=1,
                latency_s=latency,
            )
            readings[n] = checked(reading, len(values))
        return [r for r in readings if r is not None]

    def _rows(self, n: int, call: Call, prompt: list[int]) -> list[_Row]:
        """One row where every option is a single token; otherwise one row per option, to score it whole."""
        forms = self.encoder.distinct_forms(call.options)
        if forms is not None:
            return [_Row(call=n, first=0, ids=prompt, start=len(prompt), forms=forms)]
        plain = self.encoder.is_plain(call)
        return [
            _Row(
                call=n,
                first=k,
                ids=prompt + self.encoder.continuation(option, plain=plain),
                start=len(prompt),
                forms=None,
            )
            for k, option in enumerate(call.options)
        ]

    def _score(self, batch: Sequence[_Row]) -> list[list[float]]:
        """Per row: the log probabilities of its options, natural log."""
        import torch

        width = max(len(row.ids) for row in batch)
        ids_BT = torch.tensor([row.ids + [self.padding] * (width - len(row.ids)) for row in batch])
        wanted = [row.positions for row in batch]
        kept = sorted({p for positions in wanted for p in positions})
        column = {p: c for c, p in enumerate(kept)}
        with torch.inference_mode():
            logits_BKV = self.model(
                input_ids=ids_BT.to(self.device),
                logits_to_keep=torch.tensor(kept, device=self.device),
                use_cache=False,
            ).logits
            rows = [r for r, positions in enumerate(wanted) for _ in positions]
            columns = [column[p] for positions in wanted for p in positions]
            logprobs_NV = torch.log_softmax(logits_BKV[rows, columns].float(), dim=-1).cpu()
        scores: list[list[float]] = []
        at = 0
        for row in batch:
            mine_NV = logprobs_NV[at : at + len(row.positions)]
            at += len(row.positions)
            if row.forms is None:
                answer = row.ids[row.start :]
                scores.append([float(mine_NV[range(len(answer)), answer].sum())])
            else:
                scores.append([float(mine_NV[0, list(form)].logsumexp(0)) for form in row.forms])
        return scores


def _fast_bfloat16_cpu() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in tiles (AMX): 2.4 times as fast as float32, measured."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and " amx_bf16" in info.read_text()


def _float32_head(model: Any) -> None:
    """Lets the output layer compute in float32: at a logit of 10, bfloat16 knows p only to 1.6%."""
    import torch

    head = model.get_output_embeddings()
    if head is None or head.weight.dtype == torch.float32:
        return
    weight = head.weight.detach().float()
    bias = None if head.bias is None else head.bias.detach().float()
    head.forward = lambda hidden: torch.nn.functional.linear(hidden.float(), weight, bias)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One sequence through the model: call number, first option that it scores, ids, where the answer starts.

    `forms` holds the single tokens of every option; None when `ids` ends with the one option to be scored.
    """

    call: int
    first: int
    ids: list[int]
    start: int
    forms: tuple[tuple[int, ...], ...] | None

    @property
    def positions(self) -> range:
        """The positions whose logits predict the answer."""
        return range(self.start - 1, len(self.ids) - (self.forms is None))


def _batches(rows: Sequence[_Row], tokens_per_batch: int) -> Iterator[list[_Row]]:
    """Consecutive rows whose padded size stays under `tokens_per_batch`; rows come sorted by length."""
    batch: list[_Row] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row.ids) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
