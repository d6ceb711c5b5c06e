"""Load against an OpenAI-compatible server: an open-loop generator of our own, and the tools others wrote.

A run is one `Load`. Every generator turns it into a `Result` in the JSON layout of `vllm bench serve`, so that
plans (matrix, sweep, saturation), plots and the readers of `diagnose --evidence` need to know one layout only.
"""
