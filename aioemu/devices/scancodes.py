"""The i8042's translation of scan code set 2, which keyboards speak, to set 1, which PC software expects.

From the published table of the IBM 8042; 0xF0 (key released) becomes the top bit of the code that follows. `KEYS` is
the way back for whoever types: key names to set 1 codes, with the top bit set where set 1 and 2 have a 0xE0 in front.
"""

from __future__ import annotations

from functools import cache

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

KEYS = """
esc=01 1=02 2=03 3=04 4=05 5=06 6=07 7=08 8=09 9=0a 0=0b minus=0c equal=0d backspace=0e tab=0f
q=10 w=11 e=12 r=13 t=14 y=15 u=16 i=17 o=18 p=19 bracket_left=1a bracket_right=1b ret=1c ctrl=1d
a=1e s=1f d=20 f=21 g=22 h=23 j=24 k=25 l=26 semicolon=27 apostrophe=28 grave_accent=29 shift=2a backslash=2b
z=2c x=2d c=2e v=2f b=30 n=31 m=32 comma=33 dot=34 slash=35 shift_r=36 kp_multiply=37 asterisk=37 alt=38 spc=39
caps_lock=3a f1=3b f2=3c f3=3d f4=3e f5=3f f6=40 f7=41 f8=42 f9=43 f10=44 num_lock=45 scroll_lock=46
kp_7=47 kp_8=48 kp_9=49 kp_subtract=4a kp_4=4b kp_5=4c kp_6=4d kp_add=4e kp_1=4f kp_2=50 kp_3=51 kp_0=52
kp_decimal=53 sysrq=54 less=56 f11=57 f12=58
kp_enter=9c ctrl_r=9d kp_divide=b5 print=b7 alt_r=b8 home=c7 up=c8 pgup=c9 left=cb right=cd end=cf down=d0
pgdn=d1 insert=d2 delete=d3 meta_l=db meta_r=dc menu=dd power=de sleep=df wake=e3 pause=c6
"""
_PROPER = {0x41: 0x83, 0x54: 0x84}  # set 1 codes that more than one code of set 2 leads to: the one of the key
_PRINT, _PAUSE = 0xB7, 0xC6  # keys with sequences of their own
_OF_PRINT = (bytes.fromhex("e012e07c"), bytes.fromhex("e0f07ce0f012"))
_OF_PAUSE = (bytes.fromhex("e11477e1f014f077"), b"")  # says both at once


@cache
def key_numbers() -> dict[str, int]:
    """Key names and their numbers."""
    return {name: int(code, 16) for name, _, code in (word.partition("=") for word in KEYS.split())}


def key_bytes(number: int, down: bool) -> bytes | None:
    """What a keyboard sends in set 2 when the key (number) goes down or up; None for a number that is no key."""
    if number in (_PRINT, _PAUSE):
        return (_OF_PRINT if number == _PRINT else _OF_PAUSE)[not down]
    plain = number & 0x7F
    code = _PROPER.get(plain) or next((at for at, set_1 in enumerate(SET_1) if at and set_1 == plain), None)
    if code is None or not 0 < number < 0x100:
        return None
    return (b"\xe0" if number & 0x80 else b"") + (b"" if down else b"\xf0") + bytes((code,))
