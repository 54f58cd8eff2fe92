"""`python -m cwdpo`."""

from cwdpo.cli.main import main

main()
