"""``python -m u2edge``."""

from u2edge.cli import main

if __name__ == "__main__":
    main()
