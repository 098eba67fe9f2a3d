"""`python -m geotag` is `geotag`."""

from geotag.cli import run

if __name__ == "__main__":
    run()
