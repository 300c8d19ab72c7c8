"""`python -m training.dpo --config dpo.yaml [--resume]`."""

import sys

from training import cli
from training.config.supervised import DpoConfig
from training.dpo.train import train

if __name__ == "__main__":
    sys.exit(cli.main(DpoConfig, train, "Direct preference optimisation and its relatives."))
