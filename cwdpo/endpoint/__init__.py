"""Asking an OpenAI-compatible endpoint: each distinct request once, whatever is killed and whoever asks again."""
