"""The command `fastbridge`, and `python -m fastbridge`."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        from .cli import main as run
    except KeyboardInterrupt:  # there is nothing yet that it would end
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
