"""Data sets: the same bytes everywhere, and one clear error for whatever is wrong with them."""

import io
import json
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from model.dataset import checks, manifest
from model.generated import detail, generator, sort_of_clevr
from model.generated.bmp import encode_bmp
from model.program.errors import BadInput
from model.program.files import sha256_hex

DEMO = "generate://detail?images=8000&questions=16&seed=7"
DEMO_FINGERPRINT = "sha256:3764dcb732dcaa6e13b95edd8d52bc0082f2f0c7515bac774a37e7478ae9ae98"
SMALL_FINGERPRINT = "sha256:5ea89e309b192a4a3c8c978f8b3ac175b47f91743c0c2e5d7ab9fbc3c3694343"


def rows(folder):
    return pq.read_table(folder / "manifest.parquet").to_pylist()


def rewrite(folder, change):
    """Write the manifest again with `change` made to its rows, done file and all."""
    changed = change(rows(folder))
    columns = {name: [row[name] for row in changed] for name in manifest.COLUMNS.names}
    manifest.write(folder, "generated", [columns])


@pytest.fixture
def copied(small_data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(small_data, folder)
    return folder


def test_the_demo_s_fingerprint_is_the_pinned_one(tmp_path):
    assert generator.generate(DEMO, tmp_path).fingerprint == DEMO_FINGERPRINT


def test_generation_is_the_same_after_an_interruption(small_data, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000003.bmp").write_bytes(b"torn")
    (tmp_path / "manifest.parquet").write_bytes(b"torn")
    found = generator.generate("generate://detail?images=60&questions=6&seed=3", tmp_path)
    assert found.fingerprint == manifest.read(small_data).fingerprint == SMALL_FINGERPRINT
    checks.check(tmp_path, SMALL_FINGERPRINT, 1)


def test_pictures_do_not_depend_on_what_is_drawn_with_them():
    whole = detail.draw(5, np.arange(20), 18)
    part = detail.draw(5, np.arange(7, 9), 18)
    assert np.array_equal(whole[0][7:9], part[0])
    assert np.array_equal(whole[1][7:9], part[1])
    asked = [(q.text, q.answer) for q in whole[2] if q.picture in (7, 8)]
    assert asked == [(q.text, q.answer) for q in part[2]]


def test_answers_are_as_likely_as_each_other_and_none_is_asked_twice():
    _, _, asked = detail.draw(1, np.arange(500), 18)
    assert len({(q.picture, q.text) for q in asked}) == len(asked) == 9000
    for family in detail.FAMILIES:
        counts = Counter(q.answer for q in asked if q.family == family)
        assert min(counts.values()) > 0.8 * sum(counts.values()) / len(counts), family


def test_the_hidden_patch_is_neither_bright_nor_sharp_nor_there_at_half_the_resolution():
    pixels, palettes, asked = detail.draw(2, np.arange(50), 6)
    hidden = {q.picture: q.box for q in asked if q.family == "hidden"}
    flash = {q.picture: q.box for q in asked if q.family == "flash"}
    for n in range(50):
        grey = palettes[n][pixels[n]].astype(float).mean(axis=-1)
        half = grey.reshape(40, 2, 40, 2).mean(axis=(1, 3))
        x0, y0, x1, y1 = (z // 2 for z in hidden[n])
        assert np.ptp(half[y0:y1, x0:x1]) == 0
        sharp = [
            np.abs(np.diff(grey[b[1] : b[3], b[0] : b[2]])).max() for b in (hidden[n], flash[n])
        ]
        assert sharp[0] <= 64 < 180 <= sharp[1] or "rows" in texture_of(asked, n)


def texture_of(asked, picture):
    return {q.answer for q in asked if q.picture == picture and q.family in ("hidden", "flash")}


def test_a_bitmap_reads_back_as_it_was_drawn():
    pixels, palettes, _ = detail.draw(2, np.arange(1), 1)
    with Image.open(io.BytesIO(encode_bmp(pixels[0], palettes[0]))) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), palettes[0][pixels[0]])


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("generate://detail?images=60&questions=6", "wrong parameters"),
        ("generate://detail?images=60&questions=6&seed=3&seed=4", "wrong parameters"),
        ("generate://detail?images=60&questions=6&seed=3&colour=red", "wrong parameters"),
        ("generate://detail?images=-60&questions=6&seed=3", "wrong parameters"),
        ("generate://detail?images=6e1&questions=6&seed=3", "wrong parameters"),
        ("generate://detail?images=60&questions=19&seed=3", "questions (=19)"),
        ("generate://sort-of-clevr?images=60&questions=37&seed=3", "questions (=37)"),
        ("generate://detail?images=9&questions=6&seed=3", "images (=9)"),
        (
            "generate://details?images=60&questions=6&seed=3",
            "is not the address of a generated data set",
        ),
        (
            "generate://detail/x?images=60&questions=6&seed=3",
            "is not the address of a generated data set",
        ),
        (
            "https://detail?images=60&questions=6&seed=3",
            "is not the address of a generated data set",
        ),
    ],
)
def test_an_address_is_read_strictly(uri, found):
    with pytest.raises(BadInput) as refused:
        generator.parse_uri(uri)
    assert found in str(refused.value)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def not_an_image(folder):
    """The manifest is right about the file, but the file is not a picture."""
    text = b"this is not a picture"
    (folder / "images/000000.bmp").write_bytes(text)
    change = {"image_sha256": sha256_hex(text)}

    def point(rs):
        return [r | (change if r["image"] == "images/000000.bmp" else {}) for r in rs]

    rewrite(folder, point)


def only(answer):
    return lambda rs: [r | ({"answer": answer} if r["split"] == "val" else {}) for r in rs]


def without_val(rs):
    return [r for r in rs if r["split"] != "val"]


def leak(rs):
    stolen = next(r for r in rs if r["split"] == "test")
    first = rs[0]["image"]
    twin = {"image_sha256": stolen["image_sha256"], "image": stolen["image"]}
    return [r | (twin if r["image"] == first else {}) for r in rs]


def repeat(rs):
    return [rs[0], rs[1] | {"question": rs[0]["question"]}, *rs[2:]]


DAMAGES = {
    "no done file": (lambda f: (f / "dataset.json").unlink(), "no data set at"),
    "no manifest": (lambda f: (f / "manifest.parquet").unlink(), "is missing or damaged"),
    "truncated manifest": (lambda f: truncate(f / "manifest.parquet"), "is missing or damaged"),
    "empty manifest": (lambda f: (f / "manifest.parquet").write_bytes(b""), "or damaged"),
    "done file is not JSON": (lambda f: (f / "dataset.json").write_text("{"), "cannot be read"),
    "changed image": (lambda f: truncate(f / "images/000000.bmp"), "000000.bmp has SHA-256"),
    "missing image": (lambda f: (f / "images/000000.bmp").unlink(), "cannot be read"),
    "undecodable image": (not_an_image, "000000.bmp cannot be decoded as an image"),
    "empty split": (lambda f: rewrite(f, without_val),
                    "split 'val' has 0 questions"),
    "single answer": (lambda f: rewrite(f, only("rows")), "has only one answer, 'rows'"),
    "image in two splits": (lambda f: rewrite(f, leak), "of split"),
    "question twice": (lambda f: rewrite(f, repeat), "is asked twice about image"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_found_and_named(copied, damage):
    spoil, found = DAMAGES[damage]
    spoil(copied)
    with pytest.raises(BadInput) as refused:
        checks.check(copied, _version(copied), 10)
    assert found in str(refused.value)


def _version(folder):
    try:
        return manifest.read(folder).fingerprint
    except BadInput:
        return SMALL_FINGERPRINT


def test_rows_changed_behind_the_done_file_are_found(copied):
    table = pq.read_table(copied / "manifest.parquet").to_pylist()
    done = (copied / "dataset.json").read_text()
    rewrite(copied, lambda rs: [rs[0] | {"answer": "circle"}, *rs[1:]])
    (copied / "dataset.json").write_text(done)
    assert rows(copied) != table
    with pytest.raises(BadInput, match="it changed after it was written"):
        manifest.read(copied)


def test_a_whole_data_set_passes_and_is_counted(programs, small_data, dataset_config, tmp_path):
    program = programs.run("data", dataset_config(), check=small_data, output=tmp_path / "out")
    assert program.end() == 0, program.text
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    assert report["questions"] == {"train": 288, "val": 36, "test": 36}
    assert report["images"] == {"train": 48, "val": 6, "test": 6}
    assert sum(report["answers"]["test"].values()) == 36


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "sha256:" + "0" * 64}, "expected dataset.version (=sha256:000"),
        ({"format": "coco"}, 'dataset.format (="coco")'),
        ({"colour": "red"}, 'dataset.colour (="red"): Extra inputs are not permitted'),
        ({"questions_min": "many"}, 'dataset.questions_min (="many")'),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(
    programs, dataset_config, tmp_path, change, said
):
    program = programs.run("data", dataset_config(**change), output=tmp_path / "out")
    assert program.end() == 2
    assert program.last_line.startswith("error: ")
    assert said in program.last_line


def test_a_data_set_of_ours_can_be_brought_from_a_folder(
    programs, small_data, dataset_config, tmp_path
):
    output = tmp_path / "out"
    config = dataset_config(uri=str(small_data), format="arr-coc")
    assert programs.run("data", config, output=output).end() == 0
    checks.check(output, SMALL_FINGERPRINT, 10)
    done = (output / "dataset.json").stat().st_mtime_ns
    assert programs.run("data", config, output=output).end() == 0
    assert (output / "dataset.json").stat().st_mtime_ns == done


def with_truth(folder, said=b"what people said"):
    (folder / "truth.parquet").write_bytes(said)
    sealed = {"format": "vqav2", "truth_sha256": sha256_hex(b"what people said")}
    (folder / "conversion.json").write_text(json.dumps(sealed))


def test_what_a_conversion_left_comes_along(programs, copied, dataset_config, tmp_path):
    with_truth(copied)
    config, output = dataset_config(uri=str(copied), format="arr-coc"), tmp_path / "out"
    assert programs.run("data", config, output=output).end() == 0
    for name in ("truth.parquet", "conversion.json"):
        assert (output / name).read_bytes() == (copied / name).read_bytes()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: with_truth(folder, b"what nobody said"), "truth.parquet has SHA-256"),
        (lambda folder: (folder / "conversion.json").unlink(), "is missing or damaged"),
        (lambda folder: (folder / "truth.parquet").unlink(), "is missing or damaged"),
        (lambda folder: (folder / "conversion.json").write_text("[]"), "is missing or damaged"),
    ],
)
def test_a_spoilt_truth_is_not_copied(programs, copied, dataset_config, tmp_path, spoil, said):
    with_truth(copied)
    spoil(copied)
    config, output = dataset_config(uri=str(copied), format="arr-coc"), tmp_path / "out"
    program = programs.run("data", config, output=output)
    assert program.end() == 2
    assert said in program.last_line
    assert not output.exists()


def test_sort_of_clevr_s_answers_follow_from_its_pictures():
    """Shapes, sides and distances are found again in the pixels, not in the generator."""
    pixels, _, asked = sort_of_clevr.draw(4, np.arange(30), 36)
    names = list(sort_of_clevr.COLOURS)
    for n in range(30):
        where = [np.argwhere(pixels[n] == k + 1) for k in range(6)]
        centre = [(cells.min(axis=0) + cells.max(axis=0) + 1) // 2 for cells in where]
        shape = ["square" if len(cells) == 100 else "circle" for cells in where]
        for q in (q for q in asked if q.picture == n):
            k = next(i for i, name in enumerate(names) if f" {name} " in q.text)
            far = [int(((c - centre[k]) ** 2).sum()) for c in centre]
            others = [i for i in range(6) if i != k]
            if q.family in ("closest", "furthest"):
                pick = min if q.family == "closest" else max
                best = pick(far[i] for i in others)
                assert q.answer in {shape[i] for i in others if far[i] == best}
            else:
                expected = {
                    "shape": shape[k],
                    "count": str(shape.count(shape[k])),
                    "side": "left" if centre[k][1] < 40 else "right",
                    "height": "top" if centre[k][0] < 40 else "bottom",
                }
                assert q.answer == expected[q.family]
            alike = [i for i in range(6) if shape[i] == shape[k]] if q.family == "count" else []
            assert list(q.counted) == [box_around(where[i]) for i in alike]


def box_around(cells):
    """x0, y0, x1, y1 around rows and columns of pixels."""
    return tuple(map(int, (*cells.min(axis=0)[::-1], *cells.max(axis=0)[::-1] + 1)))


def test_the_boxes_of_what_is_counted_are_read_back_as_they_were_written(tmp_path):
    data = generator.generate(
        "generate://sort-of-clevr?images=20&questions=12&seed=5", tmp_path
    )
    split = manifest.read_split(data, "train")
    _, _, asked = sort_of_clevr.draw(5, np.arange(16), 12)
    read = [
        tuple(tuple(box) for box in boxes if box[0] >= 0)
        for boxes in split.counted_NK4.tolist()
    ]
    assert read == [q.counted for q in asked]
    assert any(read)
    assert not all(read)
