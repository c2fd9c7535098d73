"""`python -m spreadq`: the command `spreadq`."""

from spreadq.programs.cli import main

main()
