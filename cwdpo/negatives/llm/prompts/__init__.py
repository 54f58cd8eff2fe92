"""The shipped prompts, a file each; `prompting.py` reads them."""
