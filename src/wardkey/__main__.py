"""The ``wardkey`` command, also as ``python -m wardkey``."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line. Only the client library is there without the packages of extra ``cli``."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as error:
        print(f"error: the command needs the package {error.name}", file=sys.stderr)
        print(" hint: pip install 'wardkey[cli]'", file=sys.stderr)
        return 1
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
