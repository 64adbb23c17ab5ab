"""Entry point of `python -m mmcoop`."""

from mmcoop.cli import main

if __name__ == "__main__":
    main()
