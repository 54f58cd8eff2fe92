"""Tables for people and for programs: Markdown, LaTeX, CSV, JSON, and a terminal."""
