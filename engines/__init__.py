"""Where tokens come from: one protocol, a model in this process or a server that speaks OpenAI's API.

    engine = RemoteEngine(["http://127.0.0.1:8000/v1"], stop_ids=stops)
    engine.generate(prompt_ids, Sampling(max_new_tokens=200), seed=0, rows=range(len(prompt_ids)))

`engines.in_process` needs torch, nothing else here does.
"""

from common.threads import settle_threads
from engines.errors import EngineError
from engines.protocol import Answer, Completion, Engine, Request, Rollouts, Sampling, Spellings
from engines.remote import RemoteEngine
from engines.serve import VllmServer

settle_threads()

__all__ = [
    "Answer",
    "Completion",
    "Engine",
    "EngineError",
    "RemoteEngine",
    "Request",
    "Rollouts",
    "Sampling",
    "Spellings",
    "VllmServer",
]
