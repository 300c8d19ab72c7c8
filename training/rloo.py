"""REINFORCE leave-one-out: `python -m training.rloo --config rloo.yaml [--resume]`."""

import sys

from training import cli
from training.config.rl import RLOOConfig
from training.rl.train import train

if __name__ == "__main__":
    sys.exit(cli.main(RLOOConfig, train, "REINFORCE leave-one-out."))
