"""``python -m omniq_nb``: the command line, also installed as ``omniq-nb``."""

from omniq_nb.cli import main

if __name__ == "__main__":
    main()
