"""Packed forward passes give what one padded pass per sequence gives."""

import pytest
import torch

from training import varlen
from training.allocator import keep_freed_memory


def _sequences(lengths, vocab=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, vocab, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("lengths", [[1], [7, 7, 7], [3, 30, 1, 12, 80, 11, 12], [5, 6]])
def test_logits_and_gradients_equal_separate_passes(tiny_model, lengths):
    sequences = _sequences(lengths)
    packed = varlen.pack(sequences)
    logits = varlen.forward(tiny_model, packed).logits[0]
    logits.logsumexp(-1).sum().backward()
    gradients = [p.grad.clone() for p in tiny_model.parameters()]
    tiny_model.zero_grad()
    for index, sequence in enumerate(sequences):
        alone = tiny_model(input_ids=torch.tensor([sequence])).logits[0]
        alone.logsumexp(-1).sum().backward()
        start = packed.starts[index]
        torch.testing.assert_close(logits[start : start + len(sequence)], alone, rtol=1e-4, atol=1e-5)
    for packed_gradient, parameter in zip(gradients, tiny_model.parameters(), strict=True):
        torch.testing.assert_close(packed_gradient, parameter.grad, rtol=1e-3, atol=1e-4)


def test_sequences_do_not_see_each_other(tiny_model):
    sequences = _sequences([9, 14, 10])
    before = varlen.forward(tiny_model, varlen.pack(sequences))
    changed = [sequences[0], _sequences([14], seed=1)[0], sequences[2]]
    after = varlen.forward(tiny_model, varlen.pack(changed))
    packed = varlen.pack(sequences)
    for index in (0, 2):
        rows = slice(packed.starts[index], packed.starts[index] + len(sequences[index]))
        assert torch.equal(before.logits[0, rows], after.logits[0, rows])


def test_attention_implementation_is_put_back(tiny_model):
    varlen.forward(tiny_model, varlen.pack([[5, 6]]))
    assert tiny_model.config._attn_implementation == "sdpa"


def test_keeping_freed_memory_does_not_fail():
    keep_freed_memory()
