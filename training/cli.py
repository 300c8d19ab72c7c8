"""The command line that all trainers share: `python -m training.<trainer> --config file.yaml [--resume]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from common.errors import DataError
from engines.errors import EngineError
from training.config.base import load_config
from training.errors import Interrupted, TrainingError

C = TypeVar("C", bound=BaseModel)


def main(config_class: type[C] | Mapping[str, type[C]], train: Callable[..., Any], description: str) -> int:
    """Parse the arguments, train, and turn what went wrong into one line and an exit code.

    0 when trained; 2 for a mistake in the config, the data or the model, and for a divergence; 128 plus the
    signal's number when stopped by one (143 for SIGTERM) after a checkpoint was written.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, metavar="FILE", help="a YAML file; see docs/training.md")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in output_dir")
    arguments = parser.parse_args()
    main_process = os.environ.get("RANK", "0") == "0"
    try:
        result = train(load_config(arguments.config, config_class), resume=arguments.resume)
    except (DataError, EngineError, TrainingError) as error:
        if main_process:
            print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        if main_process:
            print(stop, file=sys.stderr)
        return stop.exit_code
    finally:
        _leave_process_group()
    if main_process:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
        print(f"{result.output_dir}: {numbers}")
    return 0


def _leave_process_group() -> None:
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
