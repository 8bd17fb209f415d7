"""``python -m histories``, see :mod:`.command`. Each client imports this module, so it imports nothing by itself."""

if __name__ == "__main__":
    import sys

    from histories.command import main

    sys.exit(main())
