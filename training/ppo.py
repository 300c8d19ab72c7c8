"""Proximal policy optimisation: `python -m training.ppo --config ppo.yaml [--resume]`."""

import sys

from training import cli
from training.config.rl import PPOConfig
from training.rl.train import train

if __name__ == "__main__":
    sys.exit(cli.main(PPOConfig, train, "Proximal policy optimisation."))
