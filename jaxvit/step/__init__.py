"""The training step and the evaluation step: pure functions over data-only state, and what they are made of."""
