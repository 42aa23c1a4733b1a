"""``python -m wardkey``: the command."""

from .cli import main

raise SystemExit(main())
