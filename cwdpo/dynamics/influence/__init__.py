"""What one update does to other responses: Proposition 1's terms, and the different ones that Figure 5 shows."""
