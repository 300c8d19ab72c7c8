"""The start of a step: sample responses and score them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from common.chat import decode_response, encode_prompt, naming
from common.rows import Prompt
from engines import EngineError, Rollouts, Sampling
from engines.in_process import InProcessEngine
from engines.in_process.nccl import NCCLGroup
from engines.protocol import Completion
from engines.stops import stop_ids
from engines.texts import Reader
from engines.update import ServedPolicy
from training.config.rl import RLConfig
from training.errors import TrainingError
from training.models import export
from training.models.adapters import add_lora
from training.models.load import generation_config, load_causal_lm
from training.models.policy import without_adapter
from training.rewards.compose import Reward
from training.rl.experience import Rollout
from training.run.runtime import Runtime
from training.run.weights import weights, whole_state

# Far above what bfloat16 kernels differ by (about 0.01), far below another model's (over 1).
LARGEST_GAP = 0.2


def connect(config: RLConfig, runtime: Runtime, tokenizer: Any) -> Rollouts | None:
    """The server that answers are sampled from, None where they come from this process. Raises TrainingError."""
    if config.rollouts.url is None:
        return None
    by_nccl = config.rollouts.transfer == "nccl"
    if by_nccl and runtime.device.type != "cuda":
        raise TrainingError(
            f"rollouts.transfer: nccl sends from a GPU, and training runs on {runtime.device.type} here; use files"
        )
    try:
        return ServedPolicy(
            config.rollouts.url,
            tokenizer,
            exporter=export,
            weights_dir=config.output_dir / "rollout_weights",
            stop_ids=stop_ids(tokenizer, generation_config(config.model)),
            decode=lambda ids: decode_response(tokenizer, ids),
            group=NCCLGroup(runtime.device) if by_nccl and runtime.is_main else None,
        )
    except EngineError as error:
        raise TrainingError(f"rollouts.url {config.rollouts.url}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Samples:
    """One process's part of a step's responses: each with the number of its group and its prompt."""

    name: str
    planned: int
    prompts: list[tuple[int, Prompt]]
    prompt_ids: list[tuple[int, ...]]
    completions: list[Completion]


class Collector:
    """Samples and scores the responses of a step; each process does a part, all of them get the whole."""

    def __init__(
        self,
        config: RLConfig,
        runtime: Runtime,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[Prompt],
        reward: Reward,
        server: Rollouts | None,
    ) -> None:
        self.config, self.runtime = config, runtime
        self.trained = model
        # Sampling takes as many passes as the longest answer needs, another number on each process: of sharded
        # weights every process keeps a whole copy for it.
        self.sampled = model
        if runtime.sharded:
            self.sampled = load_causal_lm(config.model, dtype=model.dtype, trainable=False)
            if config.lora:
                self.sampled = add_lora(self.sampled, config.lora, task="CAUSAL_LM", seed=config.seed)
            self.sampled = self.sampled.requires_grad_(False).eval().to(runtime.device)
        self.tokenizer, self.prompts, self.reward = tokenizer, prompts, reward
        self.sampling = Sampling(
            max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p
        )
        if server is not None:
            self.engine = server
        else:
            # On a CPU a small model samples no faster in bfloat16.
            on_cpu = runtime.device.type == "cpu"
            self.engine = InProcessEngine(
                self.sampled,
                tokenizer,
                batch_size=config.rollouts.batch_size,
                autocast=nullcontext if on_cpu else runtime.accelerator.autocast,
            )
        self._encoded: dict[int, tuple[int, ...]] = {}
        self._reader = Reader(tokenizer)

    def sample(self, step: int) -> Samples:
        """The step's responses, this process's part of them."""
        config = self.config
        places = prompts_of_step(len(self.prompts), step, config.prompts_per_step, config.seed)
        plan = [
            (group, self.prompts[place])
            for group, place in enumerate(places)
            for _ in range(config.samples_per_prompt)
        ]
        return self._sample(plan, seed=config.seed + 7919 * step, name=f"step {step + 1}")

    def answer(self, prompts: Sequence[Prompt], *, seed: int) -> list[Rollout]:
        """One scored response to each prompt as the policy is now; a rollout's `group` is its prompt's place.

        Raises TrainingError when not one has a reward.
        """
        rollouts, _ = self.score(self._sample(list(enumerate(prompts)), seed=seed, name="held-out prompts"))
        return rollouts

    def _sample(self, plan: Sequence[tuple[int, Prompt]], *, seed: int, name: str) -> Samples:
        runtime = self.runtime
        own = range(
            runtime.rank * len(plan) // runtime.world, (runtime.rank + 1) * len(plan) // runtime.world
        )
        whole = self.whole_policy()
        if self.config.rollouts.kind == "vllm":
            if runtime.is_main:
                self.engine.update_weights(without_adapter(whole))
            runtime.barrier()
        prompt_ids = [self._encode(plan[row][1]) for row in own]
        completions = self.engine.generate(prompt_ids, self.sampling, seed=seed, rows=own)
        return Samples(
            name=name,
            planned=len(plan),
            prompts=[plan[row] for row in own],
            prompt_ids=prompt_ids,
            completions=completions,
        )

    def score(self, samples: Samples) -> tuple[list[Rollout], dict[str, float]]:
        """The responses of all processes that have a reward, and how many have none.

        A reward sees the answer behind a thought; a thought that nothing follows has none.
        Raises TrainingError when not one has a reward.
        """
        completions = samples.completions
        fitting = [n for n, done in enumerate(completions) if done.finish_reason != "prompt_too_long"]
        read = {n: self._reader.text(samples.prompt_ids[n], completions[n]) for n in fitting}
        answered = [n for n in fitting if read[n].text or not read[n].thought]
        asked = [samples.prompts[n][1] for n in answered]
        scored = self.reward(asked, [read[n].text for n in answered])
        found = [
            Rollout(
                prompt=prompt,
                prompt_ids=samples.prompt_ids[n],
                group=samples.prompts[n][0],
                completion=completions[n],
                answer=read[n].text,
                reward=total,
                parts={name: scores[number] for name, scores in scored.parts.items()},
            )
            for number, (n, prompt, total) in enumerate(zip(answered, asked, scored.total, strict=True))
            if total is not None
        ]
        rollouts = [rollout for part in self.runtime.gather(found) for rollout in part]
        lost = [float(len(fitting) - len(found)), float(len(completions) - len(fitting))]
        missing, too_long = map(int, self.runtime.sum(lost))
        if not rollouts:
            raise TrainingError(
                f"{samples.name}: none of {samples.planned} responses has a reward: {missing} could not be scored, "
                f"{too_long} prompts fill the model's context"
            )
        return rollouts, {"missing_rewards": missing, "prompts_too_long": too_long}

    def check_sampler(self, gap: float) -> None:
        """Raises TrainingError when a server's log-probabilities are not those of the policy (mean absolute
        difference per token, where temperature and nucleus leave them comparable)."""
        comparable = self.config.temperature == 1 and self.config.top_p == 1
        if self.config.rollouts.kind == "vllm" and comparable and gap > LARGEST_GAP:
            raise TrainingError(
                f"rollouts.url {self.config.rollouts.url}: the server's log-probabilities are {gap:.2g} off the "
                "policy's: it did not take the weights; start it from a copy made by training.models.export"
            )

    def whole_policy(self) -> Any:
        """The model with its weights as they are now, whole. Every process must call this."""
        if self.runtime.sharded and self.config.lora:
            self.sampled.load_state_dict(weights(self.trained), strict=False)
        elif self.runtime.sharded:
            self.sampled.load_state_dict(whole_state(self.trained))
        return self.sampled

    def policy_to_save(self) -> Any:
        """The same, an adapter merged in unless `lora.merge` is off."""
        model, lora = self.whole_policy(), self.config.lora
        return model if lora and not lora.merge else without_adapter(model)

    def _encode(self, prompt: Prompt) -> tuple[int, ...]:
        # Prompts live as long as their lists; ids in files may repeat.
        if id(prompt) not in self._encoded:
            with naming(prompt.place or prompt.id):
                self._encoded[id(prompt)] = tuple(encode_prompt(self.tokenizer, prompt.prompt))
        return self._encoded[id(prompt)]


def prompts_of_step(total: int, step: int, count: int, seed: int) -> list[int]:
    """Which prompts a step (from 0) uses: the next `count` of an endless series of shuffled passes."""
    chosen: list[int] = []
    while len(chosen) < count:
        epoch, place = divmod(step * count + len(chosen), total)
        order = list(range(total))
        random.Random(f"{seed}/prompts/{epoch}").shuffle(order)
        chosen += order[place : place + count - len(chosen)]
    return chosen
