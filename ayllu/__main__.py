"""`python -m ayllu` is the same as the command `ayllu`."""

from ayllu.cli.main import main

if __name__ == "__main__":
    main()
