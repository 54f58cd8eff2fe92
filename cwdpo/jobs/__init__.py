"""Jobs: from a plan to processes; what became of them."""
