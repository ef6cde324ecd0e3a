"""How nano's base model was made: tokenizer, architecture, curriculum and training."""
