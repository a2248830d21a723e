"""`python -m admin` is `relaygate`, both planes of it."""

import sys

from admin.cli import main

sys.exit(main())
