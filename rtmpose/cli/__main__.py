"""`python -m rtmpose.cli`."""

from rtmpose.cli.app import main

main()
