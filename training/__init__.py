"""How weights change: SFT, reward models, reinforcement learning and direct preference optimisation.

Each trainer is a module that runs by itself, `python -m training.sft --config sft.yaml [--resume]`, and has
a function `train(config) -> TrainResult`. Importing the package does not import torch.
"""

from common.threads import settle_threads
from training.errors import Diverged, Interrupted, TrainingError

settle_threads()

__all__ = ["Diverged", "Interrupted", "TrainingError"]
