"""Training: the DeepSpeed engine, the step loop, checkpoints, and the stages that use them."""
