"""`python -m lab` is `cr3`."""

from .cli import main

if __name__ == "__main__":
    main()
