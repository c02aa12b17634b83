"""`python -m aqf` is the same command as `aqf`."""

from aqf.cli import main

main()
