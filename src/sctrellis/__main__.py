"""``python -m sctrellis``."""

import sys

from sctrellis.cli import main

if __name__ == "__main__":
    sys.exit(main())
