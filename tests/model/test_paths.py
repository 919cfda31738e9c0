"""A path that comes from data stays in its folder, whoever reads it."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model import evaluate
from model.dataset import checks, manifest
from model.dataset.copying import copy
from model.formats.convert import convert
from model.program.errors import BadInput
from model.program.files import sha256_hex, write_json
from model.program.paths import check_name, inside
from model.serving.release import verify
from tests.formats.conftest import WRITERS

WRONG = {
    "": "is empty",
    "/etc/hostname": "is absolute",
    "..": "has the part '..'",
    "../x": "has the part '..'",
    "images/../../x": "has the part '..'",
    "./x": "has the part '.'",
    "images//x": "has the part ''",
    "images/": "has the part ''",
    "..\\x": "holds a backslash",
    "x\0.bmp": "a control character",
    "x\n.bmp": "a control character",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_plain_relative_path_is_refused(tmp_path, name):
    for refuse in (lambda: check_name(name, "an image"), lambda: inside(tmp_path, name, "it")):
        with pytest.raises(BadInput) as refused:
            refuse()
        assert WRONG[name] in str(refused.value)


@pytest.mark.parametrize("name", ["x.bmp", "images/x.bmp", "a b/é…/x..y", ".hidden", "..."])
def test_any_other_name_is_a_path_in_the_folder(tmp_path, name):
    assert inside(tmp_path, name, "an image") == tmp_path / name


def test_an_error_says_what_was_found_and_expected_what_holds_and_what_to_do(tmp_path):
    with pytest.raises(BadInput) as refused:
        inside(tmp_path, "../x", "an image")
    assert str(refused.value) == (
        "the path '../x' of an image has the part '..'; expected a path inside its folder: "
        "names of folders and a file; nothing was read from it or written to it; "
        "to do: correct the data, or do not use it"
    )


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_that_leads_out_is_refused_and_one_that_stays_is_not(tmp_path, linked):
    folder, outside = tmp_path / "data", tmp_path / "data-of-others"
    for place in (folder / "images", outside):
        place.mkdir(parents=True)
        (place / "x").write_text("x")
    (folder / "stays").symlink_to(folder / "images")
    assert inside(folder, "stays/x", "an image").read_text() == "x"
    name = "out/x" if linked == "folder" else "out"
    (folder / "out").symlink_to(outside if linked == "folder" else outside / "x")
    with pytest.raises(BadInput, match="outside of"):
        inside(folder, name, "an image")


def test_a_folder_that_is_itself_a_link_is_the_user_s_own_choice(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert inside(tmp_path / "link", "x", "an image") == tmp_path / "link" / "x"


@pytest.fixture
def forged(small_data, tmp_path):
    """A data set whose first image has a path of another's choice, everything else right."""

    def forge(name):
        folder = tmp_path / "forged" / "data"
        (folder / "images").mkdir(parents=True)
        for path in (small_data / "images").iterdir():
            os.link(path, folder / "images" / path.name)
        rows = pq.read_table(small_data / "manifest.parquet").to_pylist()
        first = rows[0]["image"]
        picture = folder / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes((small_data / first).read_bytes())
        rows = [row | ({"image": name} if row["image"] == first else {}) for row in rows]
        table = pa.Table.from_pylist(rows, schema=manifest.COLUMNS)
        pq.write_table(table, folder / "manifest.parquet")
        text = "".join("\x1f".join(map(str, row.values())) + "\n" for row in rows)
        record = {"format": "generated", "fingerprint": f"sha256:{sha256_hex(text.encode())}"}
        data = manifest.read(small_data)
        record |= {"splits": data.splits, "families": data.families, "answers": data.answers}
        write_json(folder / "dataset.json", record)
        return folder, record["fingerprint"]

    return forge


def test_the_forged_data_set_is_whole_but_for_its_path(forged):
    folder, fingerprint = forged("images/of my choice.bmp")
    assert checks.check(folder, fingerprint, 1)


def test_a_manifest_that_leads_out_of_its_folder_does_not_pass_the_check(
    forged, programs, dataset_config, tmp_path
):
    folder, fingerprint = forged("../picture.bmp")
    config = dataset_config(version=fingerprint)
    program = programs.run("data", config, check=folder, output=tmp_path / "out")
    assert program.end() == 2, program.text
    assert "the path '../picture.bmp' of an image in the manifest" in program.last_line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../picture.bmp", "../../picture.bmp"])
def test_a_data_set_that_leads_out_is_not_copied_and_overwrites_nothing(
    forged, programs, dataset_config, tmp_path, name
):
    folder, fingerprint = forged(name)
    output = tmp_path / "mine" / "out"
    output.parent.mkdir()
    precious = output / name
    precious.parent.mkdir(exist_ok=True, parents=True)
    Path(os.path.normpath(precious)).write_text("precious")
    config = dataset_config(uri=str(folder), format="arr-coc", version=fingerprint)
    program = programs.run("data", config, output=output)
    assert program.end() == 2, program.text
    assert "has the part '..'" in program.last_line
    assert Path(os.path.normpath(precious)).read_text() == "precious"
    assert not [path for path in output.rglob("*") if path.is_file()]


def test_links_are_looked_at_before_the_first_file_is_copied(small_data, tmp_path):
    elsewhere, output = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    output.mkdir()
    (output / "images").symlink_to(elsewhere)
    with pytest.raises(BadInput, match="outside of"):
        copy(small_data, output)
    assert not list(elsewhere.iterdir())


def test_training_and_evaluation_read_no_picture_through_a_link_that_leads_out(
    small_data, forged, tmp_path
):
    folder, _ = forged("images/linked.bmp")
    picture = folder / "images/linked.bmp"
    picture.rename(tmp_path / "secret.bmp")
    picture.symlink_to(tmp_path / "secret.bmp")
    sha256 = sha256_hex((tmp_path / "secret.bmp").read_bytes())
    with pytest.raises(BadInput, match="outside of"):
        manifest.read_image(folder, "images/linked.bmp", sha256)
    asked = evaluate.Answered("1", "images/linked.bmp", "what", "query", "rows", "rows", 1.0)
    with pytest.raises(BadInput, match="outside of"):
        evaluate._request(folder, asked)


def test_a_manifest_that_leads_out_is_not_even_written(tmp_path):
    row = dict.fromkeys(manifest.COLUMNS.names, "x") | dict.fromkeys(manifest.BOX, 0)
    columns = {name: [value] for name, value in row.items()} | {"image": ["/x.bmp"]}
    with pytest.raises(BadInput, match="is absolute"):
        manifest.write(tmp_path, "generated", [columns])
    assert not (tmp_path / "dataset.json").exists()


@pytest.mark.parametrize("where", ["source", "target"])
def test_no_picture_is_converted_from_or_to_outside(tmp_path, where):
    official, output, outside = tmp_path / "official", tmp_path / "out", tmp_path / "outside"
    WRITERS["vizwiz"](official)
    outside.mkdir()
    if where == "source":
        picture = official / "val/VizWiz_val_00001000.jpg"
        picture.rename(outside / "picture.jpg")
        picture.symlink_to(outside / "picture.jpg")
    else:
        (output / "images").mkdir(parents=True)
        (output / "images/val").symlink_to(outside)
    before = sorted(outside.iterdir())
    with pytest.raises(BadInput, match="outside of"):
        convert("vizwiz", official, output, lambda *_: None)
    assert sorted(outside.iterdir()) == before
    assert not list(output.rglob("*.jpg"))


def test_a_release_s_file_may_not_lie_elsewhere(tmp_path):
    release = tmp_path / "v1"
    release.mkdir()
    (tmp_path / "weights").write_text("x")
    (release / "weights").symlink_to(tmp_path / "weights")
    (release / "MANIFEST").write_text(f"{sha256_hex(b'x')}  weights\n")
    with pytest.raises(BadInput, match="outside of"):
        verify(release)
