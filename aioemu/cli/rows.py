"""One row of the option table: what an option is called, takes, and means.

Rows are light: what reads an argument is named, and loaded when the option is there.
"""

from __future__ import annotations

FLAG, TEXT, OPTS, NESTED, KEYVAL = "flag", "text", "opts", "nested", "keyval"


class Option:
    """One row."""

    __slots__ = ("argument", "grammar", "group", "help", "implied", "name", "reader", "topic")

    def __init__(
        self,
        name: str,
        reader: str,
        grammar: str,
        argument: str,
        help_: str,
        implied: str | None = None,
        group: str | None = None,
        topic: str | None = None,
    ) -> None:
        self.name = name
        self.reader = reader
        self.grammar = grammar
        self.argument = argument
        self.help = help_
        self.implied = implied
        self.group = group
        self.topic = topic
