"""What meets the real thing: vLLM on a CPU, other frameworks as trainers (make peers)."""
