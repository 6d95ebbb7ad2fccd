"""`python -m semcast` is the command line, also where nothing was installed."""

import sys

from .cli import main

sys.exit(main())
