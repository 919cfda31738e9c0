"""How three official evaluators rewrite an answer before they compare it.

All three delete or blank the same punctuation marks, drop most periods, turn small number
words into digits, drop articles and repair contractions; they differ in the corners that
README.md lists. Each function here agrees with the evaluator of its name on every corner;
none of them is idempotent, so call it once.
"""

import re

MARKS = ';/[]"{}()=+\\_-><@`,?!'
_MARK = re.compile(f"[{re.escape(MARKS)}]")
_PERIODS_DROPPED_MAX = 32  # the official code gives a regex flag (32) where a count belongs

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = "zero one two three four five six seven eight nine ten"  # "eleven" stays a word

# One apostrophe left out of one of these words is put back ("dont", "couldnt've").
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've
    hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've
    mightn't mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't
    she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've
    who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've
    y'all'll you'd you'd've you'll you're you've
"""
_STRAIGHT_IN_VIZWIZ = "ain't aren't can't could've couldn't we've where's who've"

_ASCII_DIGIT_COMMA = re.compile("[0-9],[0-9]")
_DIGIT_COMMA = re.compile(r"\d,\d")
_ASCII_PERIOD = re.compile(r"\.(?![0-9])")
_PERIOD = re.compile(r"\.(?!\d)")
# White space of Python 2.7's text: Python 3's and the Mongolian vowel separator.
_WHITE_2 = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u180e\u2028\u2029\u202f\u205f\u3000" + (
    "".join(map(chr, range(0x2000, 0x200B)))
)


def vqav2(answer: str) -> str:
    """The form in which VQAv2 compares an answer, unless all humans gave the same one."""
    if answer.isalnum() and answer.isascii():
        return _one_word(answer, _SPELLING)
    text = _drop_periods(_unmark(vqav2_plain(answer), _ASCII_DIGIT_COMMA), _ASCII_PERIOD)
    return _respell(_lower_2(text).replace("\u180e", " ").split(), _SPELLING)


def vqav2_plain(answer: str) -> str:
    """The form in which VQAv2 compares an answer when all humans gave the same one."""
    if answer.isprintable():  # then blanks are the only white space in it
        return answer.strip(" ")
    return _one_line(answer).strip(_WHITE_2)


def textvqa(answer: str) -> str:
    """The form in which TextVQA compares predictions and human answers, always."""
    if answer.isalnum() and answer.isascii():
        return _one_word(answer, _SPELLING)
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = _drop_periods(_unmark(_one_line(text).strip(), _DIGIT_COMMA), _PERIOD)
    return _respell(text.lower().split(), _SPELLING)


def vizwiz(answer: str) -> str:
    """The form in which VizWiz compares a prediction; human answers it takes as they are."""
    if answer.isalnum() and answer.isascii():
        return _one_word(answer, _VIZWIZ_SPELLING)
    text = _drop_periods(_unmark(_one_line(answer).strip(), _DIGIT_COMMA), _PERIOD)
    return _respell(text.lower().split(), _VIZWIZ_SPELLING)


def _one_word(word: str, spelling: dict[str, str]) -> str:
    """The short way for most answers: one word of plain letters and digits."""
    word = word.lower()
    return "" if word in _ARTICLES else spelling.get(word, word)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ")


def _unmark(text: str, digit_comma: re.Pattern[str]) -> str:
    """Delete each mark that touches a space, blank the others.

    A comma between digits anywhere makes all marks vanish: "1,000-dollars" is one word.
    """
    marks = set(_MARK.findall(text))
    if not marks:
        return text
    vanish = digit_comma.search(text) is not None
    return text.translate(
        {
            ord(mark): "" if vanish or f"{mark} " in text or f" {mark}" in text else " "
            for mark in marks
        }
    )


def _drop_periods(text: str, period: re.Pattern[str]) -> str:
    return period.sub("", text, count=_PERIODS_DROPPED_MAX) if "." in text else text


def _lower_2(text: str) -> str:
    """Small letters as in Python 2.7: one for one, without regard to the letters around."""
    if text.isascii():
        return text.lower()
    return "".join("i" if letter == "İ" else letter.lower() for letter in text)


def _respell(words: list[str], spelling: dict[str, str]) -> str:
    return " ".join([spelling.get(word, word) for word in words if word not in _ARTICLES])


def _repairs(apostrophe: str) -> dict[str, str]:
    repairs = {f"somebody{apostrophe}d": "somebodyd"}  # the wrong way round, officially
    for word in _CONTRACTIONS.split():
        right = word.replace("'", apostrophe)
        for at, letter in enumerate(right):
            if letter == apostrophe:
                repairs[right[:at] + right[at + 1 :]] = right
    return repairs


def _vizwiz_spelling() -> dict[str, str]:
    """VizWiz's table was typeset: its apostrophes are curly but for a few that were missed."""
    repairs = _repairs("’")
    for word in _STRAIGHT_IN_VIZWIZ.split():
        repairs[word.replace("'", "")] = word
    for word in ("couldn’tve", "hadn’tve"):
        repairs[word.replace("’", "'")] = repairs.pop(word)
    return repairs | _digits()


def _digits() -> dict[str, str]:
    return {"none": "0"} | {word: str(value) for value, word in enumerate(_NUMBERS.split())}


_SPELLING = _repairs("'") | _digits()
_VIZWIZ_SPELLING = _vizwiz_spelling()
