"""The configuration of a run: one YAML file, checked before anything is spent. Imports neither torch nor prefect."""

from flows.config.loading import dump_config, load_config
from flows.config.run import RunConfig

__all__ = ["RunConfig", "dump_config", "load_config"]
