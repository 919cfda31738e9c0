"""Official files become a data set; broken ones one clear error, and nothing half done."""

import json
import os
import re

import pyarrow.parquet as pq
import pytest

from model.dataset import checks, manifest
from model.formats import convert as convert_module
from model.formats import truth_hash
from model.formats.convert import convert
from model.formats.sources import FORMATS
from model.metrics import predictions
from model.metrics.score import score
from model.program.errors import BadInput
from model.program.files import file_sha256


def quiet(phase, done, of):
    """Progress that nobody watches."""


@pytest.fixture
def made(official, tmp_path):
    def make(name, **options):
        return convert(name, official(name, **options), tmp_path / f"set-{name}", quiet)

    return make


def rows(folder, name="manifest"):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def edit(path, change):
    """Load the JSON file, change it in place, save it."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("name", FORMATS)
def test_gives_a_whole_data_set(made, name):
    folder = made(name)
    data = manifest.read(folder)
    assert all(data.splits.values())
    for row in rows(folder):
        manifest.read_image(folder, row["image"], row["image_sha256"])  # refuses other bytes
    assert [row["question_id"] for row in rows(folder)] == [
        row["question_id"] for row in rows(folder, "truth")
    ]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("name", FORMATS)
def test_no_image_is_in_two_splits(made, name):
    split_of = {}
    for row in rows(made(name)):
        assert split_of.setdefault(row["image_sha256"], row["split"]) == row["split"]


def test_vqav2_takes_texts_from_one_file_and_answers_from_the_other(made):
    by_id = {row["question_id"]: row for row in rows(made("vqav2"))}
    assert len(by_id) == 24
    assert by_id["10001"]["question"] == "What color, «1000»? n1"  # no control characters
    assert by_id["10001"]["answer"] == "yes"
    assert by_id["10001"]["family"] == "yes/no"
    assert by_id["10001"]["split"] == "test"  # the official val is our test
    assert by_id["10001"]["image"] == "images/val/COCO_val2014_000000001000.jpg"
    assert {row["split"] for name, row in by_id.items() if int(name) < 10000} == {
        "train",
        "val",
    }


def test_truth_keeps_what_people_said_as_they_said_it(made):
    truth = rows(made("textvqa"), "truth")
    assert {tuple(row["answers"]) for row in truth} == {
        ("pepsi\n",) * 10,
        ("stop",) * 6 + ("STOP",) * 4,
    }
    assert {row["answer"] for row in truth} == {"pepsi\n", "stop"}


def test_vizwiz_keeps_what_can_be_answered(made):
    truth = rows(made("vizwiz"), "truth")
    assert {(row["family"], row["answerable"]) for row in truth} == {
        ("unanswerable", 0),
        ("other", 1),
    }


def test_gqa_has_three_splits_and_the_boxes_of_the_objects_asked_about(made):
    found = rows(made("gqa"))
    assert {row["split"] for row in found} == {"train", "val", "test"}
    boxes = {
        (row["split"] == "test", row["family"]): tuple(row[name] for name in manifest.BOX)
        for row in found
    }
    nowhere = (-1, -1, -1, -1)
    assert boxes == {
        (False, "query"): (3, 4, 13, 12),
        (False, "verify"): nowhere,  # asks whether there is one; there is none
        (True, "query"): nowhere,  # testdev has no scene graphs
        (True, "verify"): nowhere,
    }


def test_gqa_reads_folders_of_chunks(official, tmp_path):
    root = official("gqa")
    whole = convert("gqa", root, tmp_path / "whole", quiet)
    path = root / "questions/train_balanced_questions.json"
    questions = json.loads(path.read_text())
    for n, name in enumerate(questions):
        chunk = root / f"questions/train_all_questions/train_all_questions_{n}.json"
        chunk.parent.mkdir(exist_ok=True)
        chunk.write_text(json.dumps({name: questions[name]}))
    path.unlink()
    chunked = convert("gqa", root, tmp_path / "chunked", quiet)
    assert manifest.read(chunked).fingerprint == manifest.read(whole).fingerprint


@pytest.mark.parametrize("name", FORMATS)
def test_the_fingerprint_does_not_depend_on_the_order_of_the_files(official, tmp_path, name):
    root = official(name)
    before = convert(name, root, tmp_path / "a", quiet)
    for path in root.rglob("*.json"):
        path.write_text(json.dumps(backwards(json.loads(path.read_text()))))
    after = convert(name, root, tmp_path / "b", quiet)
    assert manifest.read(before).fingerprint == manifest.read(after).fingerprint


def backwards(value):
    """The same file with its questions the other way round."""
    if isinstance(value, list):
        return value[::-1]
    return {k: v[::-1] if isinstance(v, list) else v for k, v in reversed(value.items())}


@pytest.mark.parametrize("name", ["vqav2", "textvqa", "vizwiz"])
def test_a_converted_set_scores_as_the_official_file(made, official, tmp_path, name):
    """And a prediction of what most people said is right."""
    folder = made(name)
    truth = [row for row in rows(folder, "truth") if row["split"] == "test"]
    path = tmp_path / "results.json"
    ids = [row["question_id"] for row in truth]
    predictions.write(name, path, ids, [row["answer"] for row in truth])
    files = {
        "vqav2": "v2_mscoco_val2014_annotations.json",
        "textvqa": "TextVQA_0.5.1_val.json",
        "vizwiz": "Annotations/val.json",
    }
    converted = score(name, path, folder)
    alone = score(name, path, official(name) / files[name])
    assert converted.accuracy == alone.accuracy
    assert converted.by == alone.by
    assert converted.accuracy.value == 1


def test_gqa_scores_from_the_converted_set(made, tmp_path):
    folder = made("gqa")
    test = [row for row in rows(folder, "truth") if row["split"] == "test"]
    path = tmp_path / "results.json"
    predictions.write("gqa", path, [r["question_id"] for r in test], ["red"] * len(test))
    found = score("gqa", path, folder, consistency=True)
    assert found.accuracy.value == 0.25
    assert found.metrics["consistency"].value == 0


def test_images_are_linked_not_copied(made, official):
    folder = made("vizwiz")
    target = next((folder / "images").rglob("*.jpg"))
    assert target.stat().st_nlink == 2


def test_images_from_another_disk_are_copied(made, monkeypatch):
    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    folder = made("vizwiz")
    assert next((folder / "images").rglob("*.jpg")).stat().st_nlink == 1
    assert manifest.read(folder)


def test_a_picture_that_is_in_train_and_test_is_left_out_of_train(official, tmp_path):
    root = official("vizwiz")
    twin = (root / "val/VizWiz_val_00001000.jpg").read_bytes()
    (root / "train/VizWiz_train_00000003.jpg").write_bytes(twin)
    folder = convert("vizwiz", root, tmp_path / "out", quiet)
    names = {row["question_id"] for row in rows(folder)}
    assert "VizWiz_train_00000003.jpg" not in names
    assert "VizWiz_val_00001000.jpg" in names
    assert json.loads((folder / "conversion.json").read_text())["left_out"] == 1


def test_progress_names_each_phase_and_ends_at_the_count(official, tmp_path):
    told = []
    convert("vqav2", official("vqav2"), tmp_path / "out", lambda *what: told.append(what))
    assert ("questions of train", 12, 12) in told
    assert ("images", 12, 12) in told
    assert ("manifest", 24, 0) in told


def test_a_finished_set_is_left_alone(made, official, tmp_path):
    folder = made("vizwiz")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    convert("vizwiz", tmp_path / "gone", folder, quiet)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


class Interrupted(Exception):
    """Stands for a signal at a bad moment."""


@pytest.mark.parametrize("name", FORMATS)
def test_interrupted_anywhere_it_goes_on_and_gives_the_same(
    official, tmp_path, name, monkeypatch
):
    monkeypatch.setattr(convert_module, "_TELL", 1)
    monkeypatch.setattr(convert_module, "_CHUNK", 3)
    root, moments = official(name), []
    whole = convert(name, root, tmp_path / "whole", lambda *what: moments.append(what))
    output, reached = tmp_path / "out", 0
    for moment in range(len(moments) + 1):

        def stop(*what, at=moment):
            nonlocal reached
            reached += 1
            if reached > at:
                raise Interrupted

        reached = 0
        try:
            convert(name, root, output, stop)
        except Interrupted:
            assert not (output / "dataset.json").exists()
        else:
            break
    assert (output / "dataset.json").read_bytes() == (whole / "dataset.json").read_bytes()
    assert rows(output, "truth") == rows(whole, "truth")


def test_other_sources_are_not_mixed_with_what_was_begun(official, tmp_path):
    root, output = official("vizwiz"), tmp_path / "out"

    def stop(phase, done, of):
        if phase == "images":
            raise Interrupted

    with pytest.raises(Interrupted):
        convert("vizwiz", root, output, stop)
    edit(root / "Annotations/val.json", lambda data: data.pop())
    convert("vizwiz", root, output, quiet)
    assert manifest.read(output).splits["test"] == 5


def test_images_that_were_hashed_are_not_read_again(official, tmp_path, monkeypatch):
    root, output = official("vizwiz"), tmp_path / "out"
    monkeypatch.setattr(manifest, "write", lambda *_: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        convert("vizwiz", root, output, quiet)
    monkeypatch.undo()
    picture = root / "val/VizWiz_val_00001000.jpg"
    picture.with_suffix(".new").write_bytes((root / "val/VizWiz_val_00001001.jpg").read_bytes())
    picture.with_suffix(".new").replace(picture)  # other bytes, another time: read again
    told = []
    convert("vizwiz", root, output, lambda *what: told.append(what))
    assert [what for what in told if what[0] == "images"] == [("images", 12, 12)]
    assert manifest.read(output)


BROKEN = {
    "an image that is missing": (
        "vizwiz",
        lambda root: (root / "val/VizWiz_val_00001002.jpg").unlink(),
        r"1 image\(s\) cannot be used: .*VizWiz_val_00001002.jpg \(No such file",
    ),
    "an image that is cut off": (
        "vizwiz",
        lambda root: cut(root / "val/VizWiz_val_00001002.jpg"),
        r"VizWiz_val_00001002.jpg \(image file is truncated",
    ),
    "an image that is text": (
        "textvqa",
        lambda root: (root / "train_images" / f"{3:016x}.jpg").write_text("<html>not found"),
        r"0000000000000003.jpg \(no PNG, JPEG, WebP or BMP",
    ),
    "an empty image": (
        "textvqa",
        lambda root: (root / "train_images" / f"{3:016x}.jpg").write_bytes(b""),
        r"0000000000000003.jpg \(no PNG, JPEG, WebP or BMP",
    ),
    "a question without annotation": (
        "vqav2",
        lambda root: edit(
            root / "v2_mscoco_val2014_annotations.json", lambda v: v["annotations"].pop()
        ),
        r"no annotation belongs to the question \(question_id 10000\)",
    ),
    "an annotation without question": (
        "vqav2",
        lambda root: edit(
            root / "Questions/v2_OpenEnded_mscoco_val2014_questions.json",
            lambda v: v["questions"].pop(),
        ),
        r"no question belongs to the annotation \(question_id 10051\)",
    ),
    "question and annotation of different images": (
        "vqav2",
        lambda root: edit(
            root / "v2_mscoco_val2014_annotations.json",
            lambda v: v["annotations"][0].update(image_id=1000),
        ),
        r"name different images \(question_id 10051\)",
    ),
    "an id that repeats": (
        "vizwiz",
        lambda root: edit(root / "Annotations/val.json", lambda v: v.append(v[0])),
        r"question id 'VizWiz_val_00001000.jpg' appears twice",
    ),
    "an id in two splits": (
        "textvqa",
        lambda root: edit(
            root / "TextVQA_0.5.1_val.json", lambda v: v["data"][0].update(question_id=1)
        ),
        r"question id '1' appears twice",
    ),
    "an id that repeats in GQA": (
        "gqa",
        lambda root: double_key(root / "questions/val_balanced_questions.json"),
        r"question id '10000' appears twice",
    ),
    "an image name that leaves the folder": (
        "vizwiz",
        lambda root: edit(
            root / "Annotations/val.json", lambda v: v[0].update(image="../train/x.jpg")
        ),
        r"image '../train/x.jpg' of val; expected a plain file name",
    ),
    "an image id that is not a number": (
        "vqav2",
        lambda root: edit(
            root / "v2_mscoco_val2014_annotations.json",
            lambda v: v["annotations"][0].update(image_id="../1"),
        ),
        r"different images",
    ),
    "a file that is cut off": (
        "gqa",
        lambda root: cut(root / "questions/val_balanced_questions.json"),
        r"val_balanced_questions.json is not the expected JSON",
    ),
    "a file that is missing": (
        "gqa",
        lambda root: (root / "questions/testdev_balanced_questions.json").unlink(),
        r"no testdev_balanced_questions.json or testdev_all_questions.json or",
    ),
    "a file that is there twice": (
        "vizwiz",
        lambda root: (root / "val.json").write_text("[]"),
        r"val.json exists twice",
    ),
    "a field that is missing": (
        "gqa",
        lambda root: edit(
            root / "questions/val_balanced_questions.json", lambda v: v["10000"].pop("types")
        ),
        r"question 10000 has no 'types'",
    ),
    "not ten answers": (
        "textvqa",
        lambda root: edit(
            root / "TextVQA_0.5.1_val.json", lambda v: v["data"][0]["answers"].pop()
        ),
        r"expected ten strings",
    ),
    "a split without questions": (
        "vizwiz",
        lambda root: (root / "Annotations/val.json").write_text("[]"),
        r"val has no image left for test",
    ),
    "bytes that are no text": (
        "vizwiz",
        lambda root: (root / "Annotations/val.json").write_bytes(b'[{"image": "\xff"}]'),
        r"val.json is not UTF-8",
    ),
    "half a character": (
        "vizwiz",
        lambda root: edit(root / "Annotations/val.json", lambda v: v[0].update(image="\ud83d")),
        r"an unpaired surrogate",
    ),
}


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])


def double_key(path):
    text = path.read_text()
    first = re.match(r'\{"10000": (.*?), "10001"', text)
    assert first
    path.write_text(text[:-1] + f', "10000": {first[1]}}}')


@pytest.mark.parametrize(("name", "damage", "message"), BROKEN.values(), ids=BROKEN)
def test_refuses(official, tmp_path, name, damage, message):
    root = official(name)
    damage(root)
    with pytest.raises(BadInput, match=message):
        convert(name, root, tmp_path / "out", quiet)
    assert not (tmp_path / "out/dataset.json").exists()


def test_a_repaired_image_is_all_that_was_missing(official, tmp_path):
    root = official("vizwiz")
    path = root / "val/VizWiz_val_00001002.jpg"
    good = path.read_bytes()
    cut(path)
    with pytest.raises(BadInput, match=r"1 image\(s\) cannot be used"):
        convert("vizwiz", root, tmp_path / "out", quiet)
    path.write_bytes(good)
    told = []
    convert("vizwiz", root, tmp_path / "out", lambda *what: told.append(what))
    assert not [what for what in told if what[0].startswith("questions")]
    assert manifest.read(tmp_path / "out").splits["test"] == 6


def test_a_data_set_of_another_format_cannot_be_the_truth(made, tmp_path):
    path = tmp_path / "results.json"
    predictions.write("gqa", path, ["1"], ["x"])
    with pytest.raises(BadInput, match="expected a data set of the format gqa"):
        score("gqa", path, made("vizwiz"))


def test_a_truth_that_was_changed_is_refused(made, tmp_path):
    folder, path = made("vizwiz"), tmp_path / "results.json"
    predictions.write("vizwiz", path, ["1"], ["x"])
    table = pq.read_table(folder / "truth.parquet")
    pq.write_table(table.slice(1), folder / "truth.parquet")
    with pytest.raises(BadInput, match="is not what was converted"):
        score("vizwiz", path, folder)


def rewrite_truth(folder, change, **options):
    """Change what people said, and let conversion.json say that the file is whole."""
    path = folder / "truth.parquet"
    table = pq.read_table(path)
    changed = [change(answers) for answers in table["answers"].to_pylist()]
    at = table.schema.get_field_index("answers")
    table = table.set_column(at, table.schema.field(at), [changed])
    pq.write_table(table, path, **options)
    edit(folder / "conversion.json", lambda s: s.update(truth_sha256=file_sha256(path)))


def test_what_people_said_is_part_of_the_fingerprint(made):
    folder = made("vqav2")
    data = manifest.read(folder)
    rewrite_truth(folder, lambda answers: ["maroon", *answers[1:]])
    with pytest.raises(BadInput, match="what people said changed after it was written"):
        checks.check(folder, data.fingerprint, 1)
    rows = truth_hash.Rows()
    for batch in pq.ParquetFile(folder / "truth.parquet").iter_batches():
        rows.add(batch)
    edit(folder / "conversion.json", lambda s: s.update(rows_sha256=rows.sha256))
    with pytest.raises(BadInput, match="the manifest's fingerprint is"):
        manifest.read(folder)


def test_the_fingerprint_does_not_depend_on_who_wrote_the_parquet_file(made):
    folder = made("gqa")
    before = (folder / "truth.parquet").read_bytes()
    rewrite_truth(folder, lambda answers: answers, compression="gzip", row_group_size=3)
    assert (folder / "truth.parquet").read_bytes() != before
    checks.check(folder, manifest.read(folder).fingerprint, 1)
