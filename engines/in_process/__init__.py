"""A model in this process: tokens by continuous batching, option log-probabilities in padded batches. Needs torch."""

from engines.in_process.generate import InProcessEngine, generate, generate_ids
from engines.in_process.model import LoadedModel, load
from engines.in_process.score import option_logprobs

__all__ = ["InProcessEngine", "LoadedModel", "generate", "generate_ids", "load", "option_logprobs"]
