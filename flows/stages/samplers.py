"""The models whose texts a stage samples, each behind the engine that the configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.lent import LentSampler
from engines.protocol import Sampling
from engines.samplers import ChatSampler, InProcessSampler, VllmSampler
from engines.samplers import Sampler as Engine
from engines.texts import Text
from flows.config.data import CriticEndpoints, SamplingSection
from flows.errors import FlowError
from flows.runs.digests import local_folder
from flows.stages.contract import Json, StageInput

if TYPE_CHECKING:
    from flows.config import RunConfig

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A sampled text without the thought before it, and its tokens.

    `finish` is stop, length (cut off, perhaps in its thought), prompt_too_long (nothing drawn) or refused.
    """

    text: str
    finish: str
    thought: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def unfinished_thought(self) -> bool:
        """Whether nothing but a thought is there, which did not end."""
        return self.finish == "length" and bool(self.thought) and not self.text

    @property
    def problem(self) -> str | None:
        """Why the text cannot be used as a whole answer, or None."""
        if self.finish in ("prompt_too_long", "refused"):
            return self.finish
        if self.unfinished_thought:
            return "truncated"
        if not self.text.strip():
            return "empty"
        return "truncated" if self.finish == "length" else None


OnAnswer = Callable[[int, Answer], None]


class Sampler:
    """A model that draws answers, loaded or served when first needed, by whichever engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def keeps_each(self) -> bool:
        """Whether answers come one by one, each worth keeping at once."""
        return not isinstance(self._engine, InProcessSampler)

    def draw(
        self,
        conversations: Sequence[Messages],
        settings: Mapping[str, Any],
        *,
        batch_size: int,
        seed: int,
        on_progress: Callable[[int, int], None],
        rows: Sequence[int] | None = None,
        on_answer: OnAnswer = lambda place, answer: None,
    ) -> list[Answer]:
        """One answer per conversation. What is drawn depends on the seed and a conversation's number in `rows`.

        Raises TrainingError for a model that cannot be loaded, EngineError when servers fail.
        """
        found: dict[int, Answer] = {}

        def finished(place: int, text: Text) -> None:
            found[place] = Answer(**vars(text))
            on_answer(place, found[place])

        self._engine.draw(
            conversations,
            Sampling(**{name: settings[name] for name in ("max_new_tokens", "temperature", "top_p")}),
            seed=seed,
            rows=range(len(conversations)) if rows is None else rows,
            at_once=batch_size,
            on_text=finished,
            on_progress=lambda done: on_progress(done, len(conversations)),
        )
        return [found[place] for place in range(len(conversations))]

    def close(self) -> None:
        """Let go of the model's memory and of its servers."""
        self._engine.close()


def sampler_of(work: StageInput, role: str) -> Sampler:
    """The model that is the stage's input `role`, behind the engine that its tuning names; in process without one."""
    if role == "critic" and (critic := work.tuning.get("critic")) is not None:
        return critic_sampler(CriticEndpoints.model_validate(critic))
    engine = SamplingSection.model_validate(work.tuning.get("engine", {}))
    if engine.kind == "in_process":
        return in_process_sampler(work.inputs[role], dtype=work.settings["dtype"])
    folder = local_folder(work.inputs[role])
    if folder is None:
        raise FlowError(f"{work.inputs[role]}: is not in the local hub cache; download it first")
    if engine.kind == "endpoints":
        from training.models.export import save_untied

        return Sampler(
            LentSampler(
                folder,
                engine.endpoints,
                load=lambda: _loaded(str(folder), dtype="float32", device="cpu"),
                export=save_untied,
                weights=work.directory / "weights",
                api_key_env=engine.api_key_env,
                timeout_s=engine.timeout_s,
                say=lambda line: work.progress(0, 0, line),
            )
        )
    return Sampler(
        VllmSampler(
            folder,
            engine.vllm(),
            logs=work.directory,
            dtype=work.settings["dtype"],
            timeout_s=engine.timeout_s,
            say=lambda line: work.progress(0, 0, line),
        )
    )


def in_process_sampler(ref: str, *, dtype: str) -> Sampler:
    """A model folder or hub id in this process, on the GPU where there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Sampler(InProcessSampler(lambda: _loaded(ref, dtype=dtype, device=device)))


def _loaded(ref: str, *, dtype: str, device: str) -> tuple[Any, Any]:
    """Model and tokenizer."""
    import torch

    from training.models.load import load_causal_lm, load_tokenizer

    model = load_causal_lm(ref, dtype=getattr(torch, dtype), trainable=False)
    return model.to(device), load_tokenizer(ref)


def critic_sampler(critic: CriticEndpoints) -> Sampler:
    """A critic on servers of the user's."""
    return Sampler(
        ChatSampler(
            critic.endpoints,
            model=critic.model,
            tokenizer=critic.tokenizer,
            api_key_env=critic.api_key_env,
            timeout_s=critic.timeout_s,
        )
    )


def engine_settings(config: RunConfig) -> Json:
    """What of the engine decides the answers: servers draw others than this process; nothing where that draws."""
    return {} if config.sampling.kind == "in_process" else {"engine": "served"}


def engine_tuning(config: RunConfig) -> Json:
    """How texts are drawn, for `sampler_of`."""
    critic = config.models.critic
    return {
        "engine": config.sampling.model_dump(mode="json"),
        "critic": critic.model_dump(mode="json") if isinstance(critic, CriticEndpoints) else None,
    }
