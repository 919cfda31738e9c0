"""How numbers are told to people: shares in percent, times in units that one can feel."""


def percent(share: float) -> str:
    """0.0667 as `6.67 %`."""
    return f"{100 * share:.3g} %"


def plain(text: str) -> str:
    """Somebody's words as text in markdown: no tag, link or picture comes of them."""
    shown = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|!":
        shown = shown.replace(sign, f"\\{sign}")
    return " ".join(shown.split())


def one_line(text: str) -> str:
    """`text` without what would break a line or steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def points(share: float) -> str:
    """A difference of two shares: 0.1 as `10 points`, 0.01 as `1 point`."""
    return f"{100 * share:.3g} point{'' if share == 0.01 else 's'}"


def counted(number: int, word: str) -> str:
    """1 as `1 record`, 2 as `2 records`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def duration(seconds: float) -> str:
    """0.05 as `50 ms`, 40 as `40 s`, 14400 as `4 h`."""
    if 0 < seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{_rounded(seconds / length)} {unit}"
    return f"{seconds:.3g} s"


def per_time(per_s: float) -> str:
    """A rate of requests: 50 as `50 requests/s`, 0.028 as `101 requests/h`."""
    number, unit = (per_s, "s") if per_s >= 1 else (per_s * 3600, "h")
    told = _rounded(number)
    return f"{told} request/{unit}" if told == "1" else f"{told} requests/{unit}"


def _rounded(number: float) -> str:
    return f"{number:.2g}" if number < 9.95 else f"{number:.0f}"
