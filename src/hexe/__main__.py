"""``python -m hexe``: the same as the script."""

from hexe.cli.main import main

main()
