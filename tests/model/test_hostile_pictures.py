"""Pictures of strangers: only pixels or BadInput comes out, at a bounded cost."""

import io
import struct
import subprocess
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from model.dataset.image_files import FORMATS, PARTS_MAX, SCANS_MAX, readable
from model.dataset.images import decode, open_file
from model.program.errors import BadInput
from tests.model.pictures import allowed, chunk, encoded, mutated, noise, others

PIXELS_MAX = 4_000_000
SECONDS_MAX = 2.0  # of the processor, for one picture; 4,000,000 pixels take up to 0.2
ALLOWED = {name: (kind, data) for name, kind, data in allowed()}
OTHERS = dict(others())


def refusal(data, pixels_max=PIXELS_MAX):
    """Why a picture is refused, and the processor seconds until then."""
    start = time.thread_time()
    with pytest.raises(BadInput) as raised:
        open_file(data, "it", pixels_max).rgb()
    return str(raised.value), time.thread_time() - start


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_left_out_of_a_file_changes_no_pixel(name):
    kind, data = ALLOWED[name]
    assert kind in FORMATS
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(np.asarray(open_file(data, "it").rgb()), expected)


def test_nothing_that_no_pixel_comes_from_reaches_pillow():
    for name, (kind, data) in ALLOWED.items():
        if "exif" in name or "icc" in name or "pnginfo" in name:
            _, parts, _ = readable(data)
            assert kind == "WEBP" or len(parts) < len(data), name
            info = Image.open(io.BytesIO(parts)).info
            assert kind == "WEBP" or not info.keys() & {"exif", "icc_profile", "comment"}, name


ISSUE = {
    "DDS": b"DDS " + struct.pack("<I", 124) + bytes(120),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
    "empty": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("name", [*OTHERS, *ISSUE])
def test_any_other_format_is_refused_unread(name, monkeypatch):
    monkeypatch.setattr(Image, "open", None)  # Pillow does not even get to see it
    monkeypatch.setattr(subprocess, "Popen", None)
    reason, _ = refusal((OTHERS | ISSUE)[name])
    assert reason == (
        "it cannot be decoded as an image (no PNG, JPEG, WebP or BMP); "
        "expected a whole PNG, JPEG, WebP or BMP file"
    )


def png_of(width, height, *chunks, data=b""):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_with(*segments):
    """A good JPEG with segments of (marker, content) put in at its start."""
    good = encoded(noise(), "JPEG")
    parts = [bytes((0xFF, m)) + struct.pack(">H", len(c) + 2) + c for m, c in segments]
    return good[:2] + b"".join(parts) + good[2:]


def overlapping_exif():
    """60,000 entries, each of which says that nearly all of the file is its value."""
    entry = [struct.pack("<HHII", 0x8000 + n % 0x7000, 7, 600_000, 8) for n in range(60_000)]
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 60_000) + b"".join(entry)
    pieces = [block[n : n + 60_000] for n in range(0, len(block), 60_000)]
    return [(0xE1, pieces[0]), *((0xE1, b"Exif\0\0" + piece) for piece in pieces[1:])]


def scans(count):
    """A progressive JPEG in which one scan is there again and again."""
    good = encoded(noise(), "JPEG", progressive=True)
    last = good.rindex(b"\xff\xda")
    return good[:last] + good[last:-2] * count + good[-2:]


def run_lengths():
    header = struct.pack("<IiiHHIIiiII", 40, 2000, 2000, 1, 8, 1, 0, 0, 0, 256, 0)
    start = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + 40 + 1024)
    return start + header + bytes(range(256)) * 4 + b"\x01\x07" * 4_000_000


REFUSED = {
    "a picture of too many pixels": (png_of(7000, 7000), "7000 × 7000 pixels"),
    "one of more than Pillow opens": (png_of(2**31 - 1, 2**31 - 1), "too many pixels"),
    "a WebP of too many pixels": (encoded(Image.new("1", (4000, 4000)).convert("RGB"), "WEBP"),
                                  "4000 × 4000 pixels"),
    "a picture of no pixels": (png_of(0, 0), "header is damaged|cannot be decoded"),
    "more chunks than a PNG has": (png_of(8, 8, *[chunk(b"tEXt", b"a\0b")] * PARTS_MAX),
                                   f"more than {PARTS_MAX} chunks"),
    "more segments than a JPEG has": (jpeg_with(*[(0xFE, b"x")] * PARTS_MAX),
                                      f"more than {PARTS_MAX} segments"),
    "more scans than a JPEG has": (scans(SCANS_MAX), f"more than {SCANS_MAX} scans"),
    "run lengths, which are decoded in Python": (run_lengths(), "compressed BMP"),
    "half a file": (encoded(noise(), "PNG")[:4000], "cannot be decoded|truncated"),
    "pixels that end early": (png_of(1000, 1000, data=zlib.compress(bytes(9))), "truncated"),
}  # fmt: skip


def test_a_jpeg_counts_what_its_decoder_works_through():
    """Whole blocks, and more scans than usual: 7 KB once took as long as eight megapixels."""
    flat = encoded(Image.new("RGB", (10_000, 1)), "JPEG")
    usual = encoded(noise(), "JPEG", progressive=True)
    wide, high = (-(-side // 8) * 8 for side in noise().size)
    assert open_file(flat, "it").pixels == 80_000
    assert open_file(usual, "it").pixels == wide * high
    often = open_file(scans(39), "it")
    assert 4 * wide * high < often.pixels <= 5 * wide * high
    reason, _ = refusal(scans(39), 2 * wide * high)
    assert "pixels in 40 scans" in reason or "scans" in reason, reason


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_at_once(name):
    data, expected = REFUSED[name]
    reason, seconds = refusal(data)
    assert any(part in reason for part in expected.split("|")), reason
    assert seconds < 0.5


JPEG = encoded(noise(), "JPEG")
HARMLESS = {
    "texts that inflate": png_of(
        8, 8, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 60,
        data=zlib.compress(bytes(9 * 8)),
    ),
    "EXIF whose entries overlap": jpeg_with(*overlapping_exif()),
    "scans of another picture behind the first": JPEG + b"\xff\xda\0" * 1_000_000,
    "junk between segments": JPEG[:20] + b"\0" * 5_000_000 + JPEG[20:],
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_pixels_are_not_made_of_costs_nothing(name):
    start = time.thread_time()
    decode(HARMLESS[name], "it")
    assert time.thread_time() - start < 0.5


def test_asking_a_program_to_stop_is_no_fault_of_the_picture(monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "convert", stopped)
    with pytest.raises(KeyboardInterrupt):
        decode(encoded(noise(), "PNG"), "it")


@pytest.mark.parametrize(
    "error", [NotImplementedError, struct.error, MemoryError, zlib.error, IndexError, EOFError]
)
def test_whatever_a_decoder_raises_is_the_picture_s_fault(error, monkeypatch):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(Image.Image, "convert", broken)
    with pytest.raises(BadInput, match=error.__name__):
        decode(encoded(noise(), "PNG"), "it")


def survive(count, seed):
    seeds = [data for _, data in ALLOWED.values()] + list(OTHERS.values())
    reasons = [reason_of(data) for data in mutated(seeds, count, seed)]
    assert count / 100 < reasons.count("") < count, "some are still pictures and some are not"
    assert not any("0x" in reason for reason in reasons)


def reason_of(data):
    """Why it is refused; empty for a picture."""
    start, reason = time.thread_time(), ""
    try:
        pixels, _ = decode_within(data)
        assert pixels.shape == (80, 80, 3)
    except BadInput as error:
        reason = str(error)
    assert time.thread_time() - start < SECONDS_MAX, data
    return reason


def decode_within(data):
    open_file(data, "it", PIXELS_MAX)
    return decode(data, "it")


def test_3_000_mutated_pictures_give_pixels_or_bad_input():
    survive(3_000, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2, 12))
def test_100_000_mutated_pictures_give_pixels_or_bad_input(seed):
    survive(10_000, seed)
