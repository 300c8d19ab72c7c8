"""Against TRL, transformers, distilabel and vLLM itself: each side in a process of its own, by turns."""
