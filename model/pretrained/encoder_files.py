"""The files of an encoder: a folder in the usual Hugging Face layout, pinned by a digest.

    config.json                what it is, and its sizes
    model.safetensors          its weights; a pickle is never read
    preprocessor_config.json   how a picture becomes pixels
    tokenizer.json             how a question becomes tokens

Other files of the folder are not read. The digest is that of the four files' `sha256sum`:

    sha256sum config.json model.safetensors preprocessor_config.json tokenizer.json | sha256sum
"""

import json
import shutil
from pathlib import Path
from typing import Any

from model.program.errors import BadInput
from model.program.files import file_sha256, sha256_hex

FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")


def verify(folder: Path, version: str) -> None:
    """Hold the four files against `version`, "sha256:" and the digest. Raises BadInput."""
    found = version_of(folder)
    if found != version:
        raise BadInput(
            f"the encoder in {folder} has the digest {found}",
            expected=f"{version}, which is pinned",
            do="find out why it changed, or pin the new digest in "
            "model.hyperparameters.encoder_version",
        )


def version_of(folder: Path) -> str:
    """ "sha256:" and the digest of the four files. Raises BadInput if one is missing."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise BadInput(
            f"no {missing[0]} in the encoder's folder {folder}, but {present[:12]}",
            expected=f"the files {', '.join(FILES)}, as Hugging Face lays them out",
            do="copy the whole folder; weights in another format or in several files "
            "cannot be read",
        )
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in FILES]
    return f"sha256:{sha256_hex(''.join(lines).encode())}"


def copy(source: Path, target: Path, version: str) -> None:
    """Copy the four files, each whole, and hold the copies against `version`."""
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        part = target / f".{name}.part"
        shutil.copyfile(source / name, part)
        part.replace(target / name)
    verify(target, version)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """One of the JSON files. Raises BadInput."""
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / name} cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise BadInput(
            f"{folder / name} is not a JSON object", expected="the encoder's own file"
        )
    return record
