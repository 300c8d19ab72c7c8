"""The first half of a step: sample responses, score them, and measure them under policy and reference."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed

from training.chat import encode_prompt
from training.data import Prompt
from training.errors import TrainingError
from training.experience import Experience, Rollout, pack_rows, response_mask, rows_of
from training.models import load_causal_lm
from training.rewards import Reward
from training.rl_config import RLConfig
from training.rl_update import Trained
from training.rollouts.in_process import InProcessEngine
from training.rollouts.protocol import Rollouts, Sampling
from training.rollouts.vllm import VLLMEngine
from training.runtime import Runtime
from training.supervised import micro_batches, share_out
from training.weights import whole_state

# Far above what bfloat16 kernels differ by (about 0.01), far below another model's (over 1).
LARGEST_GAP = 0.2


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
    ) -> None:
        self.config, self.runtime = config, runtime
        self.trained = model
        # Sampling takes as many passes as the longest answer needs, another number on each process: of sharded
        # weights every process keeps a whole copy for it.
        self.sampled = model
        if runtime.sharded:
            self.sampled = load_causal_lm(config.model, trainable=False).to(runtime.device)
        self.tokenizer, self.prompts, self.reward = tokenizer, prompts, reward
        self.sampling = Sampling(
            max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p
        )
        self.engine: Rollouts
        if config.rollouts.url is not None:
            self.engine = VLLMEngine(
                config.rollouts.url, tokenizer, weights_dir=config.output_dir / "rollout_weights"
            )
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

    def sample(self, step: int) -> tuple[list[Rollout], dict[str, float]]:
        """The step's responses that have a reward, and how many have none.

        Raises TrainingError when not one has a reward.
        """
        config = self.config
        places = prompts_of_step(len(self.prompts), step, config.prompts_per_step, config.seed)
        plan = [
            (group, self.prompts[place])
            for group, place in enumerate(places)
            for _ in range(config.samples_per_prompt)
        ]
        rollouts, counts = self._collect(plan, seed=config.seed + 7919 * step)
        if not rollouts:
            raise TrainingError(
                f"step {step + 1}: none of {len(plan)} responses has a reward: {counts['missing_rewards']} could "
                f"not be scored, {counts['prompts_too_long']} prompts fill the model's context"
            )
        return rollouts, counts

    def answer(self, prompts: Sequence[Prompt], *, seed: int) -> tuple[list[Rollout], dict[str, float]]:
        """One response to each prompt as the policy is now; a rollout's `group` is its prompt's place."""
        return self._collect(list(enumerate(prompts)), seed=seed)

    def _collect(
        self, plan: Sequence[tuple[int, Prompt]], *, seed: int
    ) -> tuple[list[Rollout], dict[str, float]]:
        runtime = self.runtime
        own = range(
            runtime.rank * len(plan) // runtime.world, (runtime.rank + 1) * len(plan) // runtime.world
        )
        whole = self.whole_policy()
        if self.config.rollouts.kind == "vllm":
            if runtime.is_main:
                self.engine.update_weights(whole)
            runtime.barrier()
        prompt_ids = [self._encode(plan[row][1]) for row in own]
        completions = self.engine.generate(prompt_ids, self.sampling, seed=seed, rows=own)
        fitting = [n for n, done in enumerate(completions) if done.finish_reason != "prompt_too_long"]
        asked = [plan[own[n]][1] for n in fitting]
        scored = self.reward(asked, [completions[n].text for n in fitting])
        found, missing = [], 0
        for number, (n, prompt, total) in enumerate(zip(fitting, asked, scored.total, strict=True)):
            if total is None:
                missing += 1
                continue
            found.append(
                Rollout(
                    prompt=prompt,
                    prompt_ids=prompt_ids[n],
                    group=plan[own[n]][0],
                    completion=completions[n],
                    reward=total,
                    parts={name: scores[number] for name, scores in scored.parts.items()},
                )
            )
        rollouts = [rollout for part in runtime.gather(found) for rollout in part]
        missing, too_long = map(int, runtime.sum([float(missing), float(len(completions) - len(fitting))]))
        return rollouts, {"missing_rewards": missing, "prompts_too_long": too_long}

    def check_sampler(self, gap: float) -> None:
        """Raises TrainingError when a server's log-probabilities are not those of the policy (mean absolute
        difference per token, where temperature and nucleus leave them comparable)."""
        comparable = self.config.temperature == 1 and self.config.top_p == 1
        if self.config.rollouts.kind == "vllm" and comparable and gap > LARGEST_GAP:
            raise TrainingError(
                f"rollouts.url {self.config.rollouts.url}: the server's log-probabilities are {gap:.2g} off the "
                "policy's: it did not take the weights; start it from a copy made by training.rollouts.export"
            )

    def whole_policy(self) -> Any:
        """The model with its weights as they are now, whole. Every process must call this."""
        if self.runtime.sharded:
            self.sampled.load_state_dict(whole_state(self.trained))
        return self.sampled

    def _encode(self, prompt: Prompt) -> tuple[int, ...]:
        # Prompts live as long as their lists; ids in files may repeat.
        if id(prompt) not in self._encoded:
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


@torch.no_grad()
def measure(
    rollouts: list[Rollout],
    policy: Trained,
    reference: Any,
    value: Trained | None,
    runtime: Runtime,
    config: RLConfig,
) -> tuple[Experience, dict[str, float]]:
    """Log-probabilities under policy and reference, values, and what they say about the step.

    Without a `reference` module it is the policy with its adapter off.
    """
    device = runtime.device
    mask_RT = response_mask(rollouts, device)
    rows = rows_of(rollouts)
    names = ("logprobs", "reference", "entropy", "values")
    found = {name: torch.zeros(mask_RT.shape, device=device) for name in names}
    shares = share_out(rows, runtime.world, policy.layout)
    groups = [micro_batches(share, config.micro_batch_tokens, policy.layout) for share in shares]
    own = groups[runtime.rank]
    for number in range(max(map(len, groups))):
        # Sharded processes exchange weights in step: one that has no more work takes part without counting.
        counted = number < len(own)
        group = own[number] if counted else rows[:1]
        packed, order = pack_rows(group, policy.layout, device)
        tokens = (packed, packed.predictors_N, packed.targets_N)
        logprobs_N, entropies_N = policy.bare(*tokens, entropy=True)
        if reference is None:
            with policy.bare.model.disable_adapter():
                reference_N, _ = policy.bare(*tokens)
        else:
            with runtime.accelerator.autocast():
                reference_N, _ = reference(*tokens)
        values_N = None
        if value is not None:
            if value.layout != policy.layout:
                packed, _ = pack_rows(group, value.layout, device)
            values_N = value.bare(packed, packed.predictors_N)
        for name, values in zip(names, (logprobs_N, reference_N, entropies_N, values_N), strict=True):
            if counted and values is not None:
                part_RT = torch.zeros((len(order), mask_RT.shape[1]), device=device)
                found[name][order] = part_RT.masked_scatter(mask_RT[order], values.float())
    if runtime.world > 1:
        for tensor in found.values():
            torch.distributed.all_reduce(tensor)
    experience = Experience(
        rollouts=rollouts,
        mask_RT=mask_RT,
        scores_R=torch.tensor([shaped(rollout, config) for rollout in rollouts], device=device),
        groups_R=torch.tensor([rollout.group for rollout in rollouts], device=device),
        logprobs_RT=found["logprobs"],
        reference_RT=found["reference"],
        values_RT=found["values"],
    )
    return experience, _summary(experience, found["entropy"])


def shaped(rollout: Rollout, config: RLConfig) -> float:
    """The reward as the update sees it: clipped, and less the penalty for not ending."""
    score = rollout.reward
    if config.reward_clip is not None:
        score = max(-config.reward_clip, min(config.reward_clip, score))
    if config.missing_eos_penalty is not None and rollout.completion.finish_reason != "stop":
        score -= config.missing_eos_penalty
    return score


def _summary(experience: Experience, entropy_RT: torch.Tensor) -> dict[str, float]:
    rollouts = experience.rollouts
    rewards = torch.tensor([rollout.reward for rollout in rollouts])
    lengths = experience.mask_RT.sum(1).float()
    sampler = [p for rollout in rollouts for p in rollout.completion.logprobs]
    gap = experience.logprobs_RT[experience.mask_RT] - torch.tensor(sampler, device=experience.mask_RT.device)
    row = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()) if len(rewards) > 1 else 0.0,
    }
    for name in rollouts[0].parts:
        if len(rollouts[0].parts) > 1:
            row[f"reward_{name}"] = sum(r.parts[name] or 0.0 for r in rollouts) / len(rollouts)
    return row | {
        "kl": float(experience.kl_R.mean()),
        "kl_per_token": float(experience.kl_R.sum() / lengths.sum()),
        "entropy": float(entropy_RT.sum() / lengths.sum()),
        "length": float(lengths.mean()),
        "truncated": sum(r.completion.finish_reason == "length" for r in rollouts) / len(rollouts),
        "sampler_gap": float(gap.abs().mean()),
    }
