"""Rollouts: sampled answers of the current policy, in this process or from a vLLM server."""

from training.rollouts.in_process import InProcessEngine, generate, generate_ids
from training.rollouts.protocol import Completion, Rollouts, Sampling
from training.rollouts.vllm import VLLMEngine

__all__ = ["Completion", "InProcessEngine", "Rollouts", "Sampling", "VLLMEngine", "generate", "generate_ids"]
