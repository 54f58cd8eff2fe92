"""Which objects a text names, in words and rules that are data."""
