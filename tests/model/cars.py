"""A benchmark in VQAv2's official files that can be learned: cars that are red or green.

What people say of a colour differs: eight of ten name it, two name it otherwise.
"""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"red": (190, 40, 40), "green": (40, 170, 60)}
FIRST = {"train": 0, "val": 1000}


def write_cars(root: Path, train: int = 60, test: int = 16) -> Path:
    """Pictures of several shapes, each asked for its colour and whether it is red."""
    for split, images in (("train", train), ("val", test)):
        questions, annotations = [], []
        for image in range(FIRST[split], FIRST[split] + images):
            color = list(COLORS)[image % 2]
            name = f"{split}2014/COCO_{split}2014_{image:012d}.jpg"
            _save(root / name, COLORS[color], image)
            said = {
                "What color is the car?": ("other", [color] * 8 + [f"dark {color}"] * 2),
                "Is it red?": ("yes/no", ["yes" if color == "red" else "no"] * 10),
            }
            for n, (question, (kind, answers)) in enumerate(said.items()):
                ids = {"image_id": image, "question_id": 10 * image + n}
                questions.append({**ids, "question": question})
                annotations.append(
                    {
                        **ids,
                        "question_type": question.split()[0],
                        "answer_type": kind,
                        "multiple_choice_answer": answers[0],
                        "answers": [
                            {"answer": a, "answer_confidence": "yes", "answer_id": i + 1}
                            for i, a in enumerate(answers)
                        ],
                    }
                )
        asked = root / f"v2_OpenEnded_mscoco_{split}2014_questions.json"
        asked.write_text(json.dumps({"questions": questions}))
        answered = root / f"v2_mscoco_{split}2014_annotations.json"
        answered.write_text(json.dumps({"annotations": annotations}))
    return root


def _save(path: Path, color: tuple[int, int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    height, width = draw.integers(30, 60, 2)
    pixels = np.clip(draw.normal(color, 25, (height, width, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    path.write_bytes(buffer.getvalue())
