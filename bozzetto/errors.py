# SPDX-License-Identifier: Apache-2.0
"""Mistakes of a user, apart from a programmer's.

`InputError` is for a file, flag, folder or picture that a person gave: the command line prints it in one sentence
(what is wrong, where, how to mend it) and leaves with code 2. A programmer's mistake is `ValueError` or `TypeError`.
"""


class InputError(Exception):
    """One sentence for a person: where, what, and how to mend it."""
