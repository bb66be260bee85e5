"""`python -m lingpai.cli`."""

from lingpai.cli import main

main()
