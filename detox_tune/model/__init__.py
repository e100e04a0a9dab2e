"""The base model, its 4-bit weights, LoRA approaches and the pocket base."""
