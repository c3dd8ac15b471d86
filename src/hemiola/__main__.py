"""``python -m hemiola`` is ``hemiola``."""

from hemiola.cli import main

if __name__ == "__main__":
    main()
