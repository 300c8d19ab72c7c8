"""How a module is made ready for several processes, as far as one process can see it."""

from __future__ import annotations

import torch

from training.config.base import TrainConfig
from training.run.runtime import Runtime


def test_gradients_lie_in_the_buckets_they_are_exchanged_in(tiny_dir, tmp_path):
    runtime = Runtime(TrainConfig(model=str(tiny_dir), output_dir=tmp_path))
    assert runtime.accelerator.ddp_handler.gradient_as_bucket_view


def test_a_module_is_sharded_block_by_block_from_where_it_lies(tiny_dir, tiny_model, tmp_path, monkeypatch):
    runtime = Runtime(TrainConfig(model=str(tiny_dir), output_dir=tmp_path))
    runtime.sharded, runtime.device = True, torch.device("meta")
    seen = []

    def shard(module):
        seen.append((type(module).__name__, {p.device.type for p in module.parameters()}))

    monkeypatch.setattr("training.run.runtime.fully_shard", shard)
    runtime.prepare(tiny_model)
    assert seen == [("LlamaDecoderLayer", {"cpu"})] * 2 + [("LlamaForCausalLM", {"cpu"})]
