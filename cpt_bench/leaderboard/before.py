"""Lists what was packed under earlier rules; the latest rules apply to everything else.

An entry names its rules itself, and an old ledger is recognised by what is missing from it. Both
could be used to avoid the present rules, so neither is trusted: old files are listed here by their
SHA-256.
"""

from __future__ import annotations

from typing import Final

FIRST_BOARD: Final = "2026-11-22"
"""No entry is older than the first board."""

NEWEST: Final = "2026-11-27"
"""Of the entries that ship with this package: a clock that is behind it is wrong."""

RULES_OF: Final = {
    # The draft of the format, before the first board: tests/entries/format1.
    "592ee3abfbe436f1db5eb45f619a3ae0a5a80192ffb5d8119243e7e394929d84": "0",
    # 2026-11-22, nano 1.0, closed: RFT (GRPO), RFT (ReMax), RFT (RLOO), SFT.
    "7b378325d8dbde6953f6d0a3a9798a7c3433cd466af2c9b5ddae1b3417b0217c": "1",
    "e81d4e2246c53c86380958efbd77884bb2c051feabf53e1c3a4e6f8a17eb4249": "1",
    "33c4b595161aa6b8a12a8d2c57faa27ac162888f580e91b2150962bdd0582339": "1",
    "56045cc8f563ea37d2bd16a4ccd04802a5727d48086cca0855fac2d07b0e0b2d": "1",
}
"""SHA-256 of an ``entry.yaml`` to the version of the rules that it is held to."""

LEDGERS: Final = frozenset(
    {
        # The draft.
        "1aa723d1994d22c4ec5b566e1ace3dbab4300c468e27a2685e568bf4a5210001",
        # RFT (GRPO), seeds 0 to 2.
        "fa0e91ee349cf2554189c6aa094467c8a0f4d2cac180b08453c404e9bc233574",
        "34af06c57c5417b7a8928f31e36b5807c5bb3f6a008de46bbceefe35ff30fdbf",
        "0770f905d68c709ddd5df11f67d9d873455b10ddeae45a29927ebbc1e5e1b879",
        # RFT (ReMax).
        "a09cc70c90d8c5e7f020fcb4b2ff458a22882a04cdde5cad3ec8ed3402c2bcba",
        "55a8166a7d8d64534cd381e13d59d089a9ce6607e719d1833fec918a43e6be05",
        "017b83181fce035444abf5bc1e47af9a2aae3392a3b1532938121f605b0bcc2f",
        # RFT (RLOO).
        "cc1d40fc12dfca73d609a1676501a6a22a308f4c16a6c24d35eb82aab6dd4bcd",
        "de3c95704f8920d5323034cfcec656d345460f4030938a75bd7e00d9e5f2512a",
        "9e8711b43ebb67e26711cceb325676e8cdac380ba9c4a58f3863b4d248cfb1a3",
        # SFT.
        "847bc05f88c47cf925e15cffb5e5debfc9012b84da8f84aa8c9b62c25d941bd0",
        "b45d4c9746df4cb76c4952f0901d148d0b4e64a1c12aaccf710b39fcb9ab36eb",
        "b176b9c5754d4afe22eb444c80c3b251baadd696d3339f2b37b6dfd59499b51f",
    }
)
"""SHA-256 of the ledgers of runs that recorded neither privileges nor a budget."""
