"""Any method of reinforcement learning: `python -m training.rl --config rl.yaml [--resume]`, `method:` in the file."""

import sys

from training import cli
from training.config.rl import METHODS
from training.rl.train import train

if __name__ == "__main__":
    sys.exit(cli.main(METHODS, train, "Reinforcement learning by PPO, GRPO or RLOO."))
