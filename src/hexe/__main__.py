"""``python -m hexe``: the same as the script."""

import sys

if not getattr(sys.flags, "safe_path", False):
    # The working directory, which -m puts first: a json.py planted there would run outside of any sandbox. What a
    # package named hexe there would do comes too early for this: python -P -m hexe (3.11) looks at neither.
    del sys.path[0]

from hexe.cli.main import main

main()
