"""Network cards of a machine that is not built yet: `vm.nic[0]` can be named, and linked, before there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from aioemu.errors import EmuError

if TYPE_CHECKING:
    from aioemu.machine.nics import Nic


class NicToBe:
    """The card that will be there; everything of it once it is."""

    def __init__(self, cards: Callable[[], Sequence[Nic]], index: int) -> None:
        self._cards = cards
        self._index = index

    @property
    def card_itself(self) -> Nic:
        """The card. EmuError before the machine is open, or when it has none of that number."""
        cards = self._cards()
        if not -len(cards) <= self._index < len(cards):
            raise EmuError(f"nic[{self._index}]: this machine has {len(cards)} network cards")
        return cards[self._index]

    def __getattr__(self, name: str) -> Any:
        """What the card has."""
        return getattr(self.card_itself, name)


class NicsToBe:
    """The cards of a machine that is not open."""

    def __init__(self, cards: Callable[[], Sequence[Nic]]) -> None:
        self._cards = cards

    def __getitem__(self, index: int) -> NicToBe:
        return NicToBe(self._cards, index)
