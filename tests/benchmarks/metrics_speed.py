"""Questions a second of VQA accuracy: ours against a plain loop over the same rule.

    python tests/benchmarks/metrics_speed.py
    python tests/benchmarks/metrics_speed.py --official FOLDER --python2 PATH

Both start from annotations that are loaded (columns here, records there) and end with one
accuracy a question, in one run, in CPU seconds. "from files" is the whole way from the two
JSON files to all scores with their intervals, element by element in bounded memory, where
the loop has `json.load` and no more than the accuracies. With --official the official
evaluator (a folder that holds vqaEval.py) is run by the Python 2 that it is written for.

"often the same": answers by Zipf's law, on average seven people give the same text. "all
different": no two people say the same, which no benchmark has. Exits 1 if ours is not 20
times as fast as the loop where answers are often the same.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2]))

from model.formats.question import twins
from model.metrics import normalise
from model.metrics.score import score
from model.metrics.vqa_accuracy import RULES, accuracy

WANTED = 20
QUESTIONS = 20_000
WORDS = "red blue dog cat on table man with the a two three yes no t-shirt p.m. don't 1,000"

# Python 2: reads annotations and results, prints CPU seconds and the accuracies.
OFFICIAL = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
from vqaEval import VQAEval
class Set(object):
    def __init__(self, records): self.qa = dict((r['question_id'], r) for r in records)
    def getQuesIds(self): return sorted(self.qa)
truth = Set(json.load(open(sys.argv[2]))['annotations'])
given = Set(json.load(open(sys.argv[3])))
evaluator, found, out = VQAEval(truth, given, n=15), {}, sys.stdout
evaluator.setEvalQA = found.__setitem__
sys.stdout = open(os.devnull, 'w')
began = time.clock()
evaluator.evaluate()
seconds = time.clock() - began
sys.stdout = out
print(json.dumps([seconds, [found[i] for i in sorted(found)]]))
"""


def main() -> int:
    parser = ArgumentParser()
    parser.add_argument("--official", help="a folder that holds vqaEval.py")
    parser.add_argument("--python2", help="the Python 2 interpreter that runs it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratio = compare("often the same", Path(folder), 100_000, chosen)
        compare("all different", Path(folder), 0, chosen)
    return 0 if ratio >= WANTED else 1


def compare(name: str, folder: Path, texts: int, chosen) -> float:
    """Print one table; how many times faster than the loop ours is."""
    records, given = made(texts)
    truth_path, given_path = folder / "truth.json", folder / "given.json"
    truth_path.write_text(json.dumps({"annotations": records}))
    given_path.write_text(json.dumps(given))
    guesses = [item["answer"] for item in given]

    print(f"{name}: {len(records)} questions of 10 answers")
    slow, loop_found = timed(lambda: loop(records, guesses))
    columns = loaded(records, guesses)
    fast, found = timed(lambda: accuracy(RULES["vqav2"], *columns).tolist())
    assert found == loop_found, "the loop scores otherwise"
    ratio = row("ours", fast, "loop", slow)
    if chosen.official:
        command = [chosen.python2, "-c", OFFICIAL, chosen.official, truth_path, given_path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        slow, official_found = json.loads(done.stdout)
        assert found == official_found, "the official code scores otherwise"
        row("ours", fast, "official", slow)
    slow, _ = timed(lambda: loop_files(truth_path, given_path))
    fast, _ = timed(lambda: score("vqav2", given_path, truth_path))
    row("ours from files", fast, "loop from files", slow)
    return ratio


def row(name: str, fast: float, other: str, slow: float) -> float:
    print(
        f"  {name} {QUESTIONS / fast:>9,.0f} a second, {other} {QUESTIONS / slow:>7,.0f},"
        f" ratio {slow / fast:.1f}"
    )
    return slow / fast


def made(texts: int) -> tuple[list[dict], list[dict]]:
    """Annotations and predictions; `texts` different answers by Zipf's law, or no two alike."""
    dice = np.random.default_rng(1)
    if texts:
        weights = 1 / np.arange(1, texts + 1)
        pool = dice.choice(texts, (QUESTIONS, 4), p=weights / weights.sum())
        said = np.take_along_axis(pool, dice.integers(0, 4, (QUESTIONS, 10)), axis=1)
    else:
        said = np.arange(QUESTIONS * 10).reshape(QUESTIONS, 10)
    vocabulary = phrases(dice, int(said.max()) + 1)
    records, given = [], []
    for n in range(QUESTIONS):
        people = [vocabulary[number] for number in said[n]]
        answers = [
            {"answer": answer, "answer_confidence": "yes", "answer_id": a + 1}
            for a, answer in enumerate(people)
        ]
        ids = {"question_id": n, "image_id": n // 5}
        types = {"question_type": f"type {n % 65}", "answer_type": "other"}
        label = {"multiple_choice_answer": people[0]}
        records.append({**ids, **types, **label, "answers": answers})
        given.append({"question_id": n, "answer": people[n % 10].upper()})
    return records, given


def phrases(dice: np.random.Generator, number: int) -> list[str]:
    """Different texts, 89 % of them one word and 7 % two (Antol et al. 2015)."""
    words = WORDS.split()
    chosen = dice.integers(0, len(words), (number, 2))
    length = dice.choice([0, 1, 2], number, p=[0.89, 0.07, 0.04])
    return [
        " ".join([*(words[w] for w in chosen[n, : length[n]]), f"w{n}"]) for n in range(number)
    ]


def timed(run: Callable[[], object]) -> tuple[float, object]:
    began = time.process_time()
    result = run()
    return time.process_time() - began, result


def loaded(records: list[dict], guesses: list[str]) -> tuple[pa.Array, pa.Array, pa.Array]:
    people = [[item["answer"] for item in record["answers"]] for record in records]
    twin = [twins(record["answers"]) for record in records]
    strings, numbers = pa.list_(pa.string()), pa.list_(pa.int16())
    return pa.array(guesses), pa.array(people, strings), pa.array(twin, numbers)


def loop_files(truth_path: Path, given_path: Path) -> list[float]:
    records = json.loads(truth_path.read_text())["annotations"]
    given = {item["question_id"]: item["answer"] for item in json.loads(given_path.read_text())}
    return loop(records, [given[record["question_id"]] for record in records])


def loop(records: list[dict], guesses: list[str]) -> list[float]:
    """The rule as one would write it down: every answer of every question by itself."""
    result = []
    for record, guess in zip(records, guesses, strict=True):
        people = [dict(item, answer=one_line(item["answer"])) for item in record["answers"]]
        guess = one_line(guess)
        if len({item["answer"] for item in people}) > 1:
            for item in people:
                item["answer"] = rewritten(item["answer"])
            guess = rewritten(guess)
        total = 0.0
        for left_out in people:
            others = [item for item in people if item != left_out]
            matches = [item for item in others if item["answer"] == guess]
            total += min(1, len(matches) / 3)
        result.append(total / len(people))
    return result


def one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def rewritten(text: str) -> str:
    result = text
    for mark in normalise.MARKS:
        touches = f"{mark} " in text or f" {mark}" in text
        if touches or normalise._ASCII_DIGIT_COMMA.search(text):
            result = result.replace(mark, "")
        else:
            result = result.replace(mark, " ")
    result = normalise._ASCII_PERIOD.sub("", result, count=32)
    words = [normalise._SPELLING.get(word, word) for word in result.lower().split()]
    return " ".join(word for word in words if word not in ("a", "an", "the"))


if __name__ == "__main__":
    sys.exit(main())
