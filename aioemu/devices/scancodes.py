"""The i8042's translation of scan code set 2, which keyboards speak, to set 1, which PC software expects.

From the published table of the IBM 8042; 0xF0 (key released) becomes the top bit of the code that follows.
"""

from __future__ import annotations

SET_1 = bytes.fromhex(
    "ff43413f3d3b3c58644442403e0f2959"  # 00
    "65382a701d10025a66712c1f1e11035b"  # 10
    "672e2d201205045c68392f211413065d"  # 20
    "693130232215075e6a7232241608095f"  # 30
    "6b332517180b0a606c34352627190c61"  # 40
    "6d7328741a0d626e3a361c1b752b6376"  # 50
    "55567778797a0e7b7c4f7d4b477e7f6f"  # 60
    "5253504c4d480145574e514a37494654"  # 70
    "8081824154"  # 80
)
