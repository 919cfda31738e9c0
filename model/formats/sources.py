"""Where the official files of each benchmark lie, and which split of ours each becomes.

The official test splits have no public answers (GQA's testdev has), so that the official
val is our test; train then gives a part of its images to our val.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from model.formats import gqa, textvqa, vizwiz, vqav2
from model.formats.question import Question
from model.program.errors import BadInput

FORMATS = ("vqav2", "gqa", "textvqa", "vizwiz")


@dataclass(frozen=True)
class Source:
    """One official split: its files, its images, and the split of ours that it becomes.

    `read` gives each question with the id of the scene's object that it asks about.
    """

    name: str
    split: str
    files: tuple[Path, ...]
    folder: Path
    image_name: Callable[[str], str]
    read: Callable[[], Iterable[tuple[Question, str | None]]]
    words: Callable[[], Iterable[tuple[str, str, str]]] | None = None
    scenes: Path | None = None


def sources(name: str, root: Path) -> list[Source]:
    """The official splits found in `root`. Raises BadInput naming what is missing."""
    if name not in _FINDERS:
        raise BadInput(f"format {name!r}", expected=f"one of {FORMATS}")
    finder, splits = _FINDERS[name]
    return [finder(root, official, ours) for official, ours in splits.items()]


def _vqav2(root: Path, name: str, split: str) -> Source:
    asked = _find(root, f"v2_OpenEnded_mscoco_{name}2014_questions.json")
    answered = _find(root, f"v2_mscoco_{name}2014_annotations.json")
    return Source(
        name,
        split,
        (answered, asked),
        _find(root, f"{name}2014"),
        lambda image: vqav2.image_name(name, image),
        lambda: _without_object(vqav2.annotations(answered)),
        lambda: vqav2.texts(asked),
    )


def _gqa(root: Path, name: str, split: str) -> Source:
    names = ("balanced_questions.json", "all_questions.json", "all_questions")
    file, scenes = _find(root, *(f"{name}_{rest}" for rest in names)), None
    if name != "testdev":  # the only split that was never given scene graphs
        scenes = _look_for(root, f"{name}_sceneGraphs.json")
    return Source(
        name,
        split,
        (*gqa.files(file), *([scenes] if scenes else [])),
        _find(root, "images"),
        _jpg,
        lambda: gqa.questions(file),
        scenes=scenes,
    )


def _textvqa(root: Path, name: str, split: str) -> Source:
    file, folder = _find(root, f"TextVQA_0.5.1_{name}.json"), _find(root, "train_images")
    return Source(
        name, split, (file,), folder, _jpg, lambda: _without_object(textvqa.questions(file))
    )


def _vizwiz(root: Path, name: str, split: str) -> Source:
    file, folder = _find(root, f"{name}.json"), _find(root, name)
    return Source(
        name, split, (file,), folder, str, lambda: _without_object(vizwiz.questions(file))
    )


_VAL_IS_TEST = {"train": "train", "val": "test"}
_FINDERS = {
    "vqav2": (_vqav2, _VAL_IS_TEST),
    "gqa": (_gqa, {"train": "train", "val": "val", "testdev": "test"}),
    "textvqa": (_textvqa, _VAL_IS_TEST),
    "vizwiz": (_vizwiz, _VAL_IS_TEST),
}


def _without_object(questions: Iterable[Question]) -> Iterable[tuple[Question, None]]:
    return ((question, None) for question in questions)


def _jpg(image: str) -> str:
    return f"{image}.jpg"


def _find(root: Path, *names: str) -> Path:
    """The first of `names` that exists in `root` or one folder down. Raises BadInput."""
    found = _look_for(root, *names)
    if found is None:
        raise BadInput(
            f"no {' or '.join(names)} in {root} or in one of its folders",
            expected="the official files, unpacked",
            do="model/metrics/README.md lists them",
        )
    return found


def _look_for(root: Path, *names: str) -> Path | None:
    for name in names:
        found = [p for p in [root / name, *sorted(root.glob(f"*/{name}"))] if p.exists()]
        if len(found) > 1:
            raise BadInput(f"{name} exists twice: {found[0]}, {found[1]}", do="keep one")
        if found:
            return found[0]
    return None
