"""Small sets in the four official formats, as their archives unpack."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def save(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def picture(path: Path, seed: int) -> None:
    """A small JPEG of noise; other seeds, other bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue())


def human(answer: str, number: int = 10) -> list[dict[str, object]]:
    return [
        {"answer": answer, "answer_confidence": "yes", "answer_id": n + 1}
        for n in range(number)
    ]


def write_vqav2(root: Path, images: int = 6) -> None:
    for split, first in (("train", 0), ("val", 1000)):
        questions, annotations = [], []
        for image in range(first, first + images):
            picture(root / f"{split}2014/COCO_{split}2014_{image:012d}.jpg", image)
            for n in range(2):
                ids = {"image_id": image, "question_id": image * 10 + n}
                questions.append({**ids, "question": f"What color, «{image}»?\nn{n}"})
                annotations.append(
                    {
                        **ids,
                        "question_type": "what color",
                        "answer_type": "yes/no" if n else "other",
                        "multiple_choice_answer": "yes" if n else f"red {image % 3}",
                        "answers": human("yes" if n else f"red {image % 3}"),
                    }
                )
        head = {"info": {"version": "2.0", "year": 2017}, "data_type": "mscoco"}
        asked = f"v2_OpenEnded_mscoco_{split}2014_questions.json"
        save(root / "Questions" / asked, {**head, "questions": questions})
        answered = f"v2_mscoco_{split}2014_annotations.json"
        save(root / answered, {"annotations": annotations[::-1], **head})


def write_textvqa(root: Path, images: int = 6) -> None:
    number = 0
    for split, first in (("train", 0), ("val", 1000)):
        data = []
        for image in range(first, first + images):
            picture(root / f"train_images/{image:016x}.jpg", image)
            for _ in range(2):
                number += 1
                answers = ["stop"] * 6 + ["STOP"] * 4 if image % 2 else ["pepsi\n"] * 10
                data.append(
                    {
                        "question_id": number,
                        "image_id": f"{image:016x}",
                        "question": "what does it say?",
                        "answers": answers,
                        "image_width": 32,
                        "image_height": 24,
                        "image_classes": ["Sign"],
                    }
                )
        head = {"dataset_type": split, "dataset_name": "textvqa", "dataset_version": "0.5.1"}
        save(root / f"TextVQA_0.5.1_{split}.json", {**head, "data": data})


def write_vizwiz(root: Path, images: int = 6) -> None:
    for split, first in (("train", 0), ("val", 1000)):
        data = []
        for image in range(first, first + images):
            name = f"VizWiz_{split}_{image:08d}.jpg"
            picture(root / split / name, image)
            answer = "unanswerable" if image % 2 else f"can {image % 3}"
            data.append(
                {
                    "image": name,
                    "question": "what is this?",
                    "answers": [
                        {k: v for k, v in item.items() if k != "answer_id"}
                        for item in human(answer)
                    ],
                    "answer_type": "unanswerable" if image % 2 else "other",
                    "answerable": 1 - image % 2,
                }
            )
        save(root / "Annotations" / f"{split}.json", data)


def write_gqa(root: Path, images: int = 4) -> None:
    for split, first in (("train", 0), ("val", 1000), ("testdev", 2000)):
        questions, scenes = {}, {}
        for image in range(first, first + images):
            picture(root / f"images/n{image}.jpg", image)
            cup = {"name": "cup", "x": 3, "y": 4, "w": 10, "h": 8}
            scenes[f"n{image}"] = {"width": 32, "height": 24, "objects": {"77": cup}}
            for n in range(2):
                questions[f"{image}{n}"] = gqa_question(image, n)
        save(root / f"questions/{split}_balanced_questions.json", questions)
        if split != "testdev":
            save(root / f"sceneGraphs/{split}_sceneGraphs.json", scenes)


def gqa_question(image: int, n: int) -> dict[str, object]:
    """Question 0 asks for the colour of the scene's cup, question 1 whether there is one."""
    last = {
        "operation": "query" if n == 0 else "exist",
        "dependencies": [1],
        "argument": "color",
    }
    program = [
        {
            "operation": "select",
            "dependencies": [],
            "argument": "cup (77)" if n == 0 else "cup (-)",
        },
        {"operation": "filter color", "dependencies": [0], "argument": "red"},
        last,
    ]
    return {
        "question": "What color is the cup?" if n == 0 else "Is there a cup?",
        "answer": ("red", "blue")[image % 2] if n == 0 else "no",
        "imageId": f"n{image}",
        "isBalanced": True,
        "semantic": program,
        "entailed": [f"{image}{1 - n}"],
        "groups": {"global": "cup-color" if n == 0 else None, "local": "x"},
        "types": {
            "structural": "query" if n == 0 else "verify",
            "semantic": "attr",
            "detailed": "attr",
        },
        "annotations": {"question": {"4": "77"}, "answer": {}, "fullAnswer": {}},
    }


WRITERS: dict[str, Callable[..., None]] = {
    "vqav2": write_vqav2,
    "textvqa": write_textvqa,
    "vizwiz": write_vizwiz,
    "gqa": write_gqa,
}


@pytest.fixture
def official(tmp_path) -> Callable[..., Path]:
    """Write the named benchmark's files and return their folder."""

    def write(name: str, **options: int) -> Path:
        root = tmp_path / f"official-{name}"
        WRITERS[name](root, **options)
        return root

    return write
