"""``python -m bpxp`` is the command ``bpxp``."""

from bpxp.cli import main

raise SystemExit(main())
