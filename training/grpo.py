"""Group relative policy optimisation: `python -m training.grpo --config grpo.yaml [--resume]`."""

import sys

from training import cli
from training.config.rl import GRPOConfig
from training.rl.train import train

if __name__ == "__main__":
    sys.exit(cli.main(GRPOConfig, train, "Group relative policy optimisation."))
