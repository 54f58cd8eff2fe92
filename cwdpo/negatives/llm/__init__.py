"""Asking an endpoint about every record of a portion: what is asked, and what a source can use of the replies."""
