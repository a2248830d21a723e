"""`python -m proxy` is `relaygate`."""

import sys

from proxy.cli import main

sys.exit(main())
