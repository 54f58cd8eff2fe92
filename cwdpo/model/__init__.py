"""Models: configuration, loading, log-probabilities, generation."""
