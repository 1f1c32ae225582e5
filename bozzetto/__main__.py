# SPDX-License-Identifier: Apache-2.0
"""`python -m bozzetto`: the command line, where the folder of the `bozzetto` command is not on the path."""

from bozzetto.cli import main

if __name__ == "__main__":
    main()
