"""`python -m worker` is `loracle`."""

from worker.cli import main

if __name__ == "__main__":
    main()
