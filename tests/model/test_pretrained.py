"""ARR-COC over a frozen encoder: an exact budget, gradients, ablations, answers of many."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.dataset import manifest
from model.dataset.batches import Batches, split_reader
from model.dataset.soft_targets import SoftTargets
from model.metrics.score import score
from model.network.allocator import bought
from model.network.levels import offer_of_token, places
from model.pretrained import answers
from model.pretrained.levels import pooled
from model.pretrained.network import PretrainedNetwork, Sizes
from model.training.loss import count_right, loss_sum
from tests.model.encoders import QUESTIONS, seen_by
from tests.model.gradients import ROUNDING, largest_gradients

KINDS = ("clip", "siglip")
ABLATIONS = (
    "none",
    "no-propositional",
    "no-perspectival",
    "no-participatory",
    "uniform-lod",
    "no-opponent-processing",
)
TOKENS_BY_OFFER = offer_of_token().sum(dim=1)


@pytest.fixture
def network(opened):
    def make(ablation="none", kind="clip", seed=0):
        torch.manual_seed(seed)
        return PretrainedNetwork(Sizes(16, 5, ablation), *opened[kind])

    return make


@pytest.mark.parametrize(("ablation", "kind"), [*itertools.product(ABLATIONS, KINDS)])
def test_the_budget_is_exact(network, opened, ablation, kind):
    _, preprocessor = opened[kind]
    pixels = seen_by(preprocessor, (50, 37), (32, 32))
    tokens = torch.from_numpy(preprocessor.tokenize(QUESTIONS)).expand(2, -1, -1)
    level_BQR = network(ablation, kind)(pixels, tokens).level_BQR
    assert (bought(level_BQR).float() @ TOKENS_BY_OFFER).unique().tolist() == [64]


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_answer_s_gradient_reaches_all_that_is_ours_and_nothing_of_the_encoder(
    network, opened, ablation
):
    encoder, preprocessor = opened["clip"]
    tokens = torch.from_numpy(preprocessor.tokenize(QUESTIONS[:2]))[None]
    pixels = seen_by(preprocessor, (50, 37))
    largest = largest_gradients(
        lambda draw: network(ablation, seed=draw), lambda _: (pixels, tokens)
    )
    assert [name for name, norm in largest.items() if norm < ROUNDING] == []
    frozen = [*encoder._image.parameters(), *encoder._text.parameters()]
    assert frozen
    assert not any(p.requires_grad or p.grad is not None for p in frozen)


@pytest.mark.parametrize(
    ("ablation", "part"),
    [
        ("no-propositional", "propositional"),
        ("no-perspectival", "perspectival"),
        ("no-participatory", "participatory"),
        ("no-participatory", "gist"),
        ("no-opponent-processing", "balancer"),
    ],
)
def test_an_ablation_removes_the_parameters(network, ablation, part):
    def names(net):
        return [name for name, _ in net.named_parameters() if part in name]

    assert names(network())
    assert not names(network(ablation))


def test_uniform_detail_does_not_follow_relevance(network, opened):
    tokens = torch.from_numpy(opened["clip"][1].tokenize(QUESTIONS))[None]
    pixels = seen_by(opened["clip"][1], (50, 37))
    assert network("uniform-lod")(pixels, tokens).level_BQR.unique().tolist() == [1]
    assert network()(pixels, tokens).level_BQR.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_does_not_depend_on_what_is_asked_beside_it(network, opened, kind):
    net, (_, preprocessor) = network(kind=kind).eval(), opened[kind]
    pixels = seen_by(preprocessor, (50, 37))
    alone = net(pixels, torch.from_numpy(preprocessor.tokenize(QUESTIONS[2:3]))[None])
    beside = net(pixels, torch.from_numpy(preprocessor.tokenize(QUESTIONS))[None])
    assert torch.allclose(alone.answer_BQA[0, 0], beside.answer_BQA[0, 2], atol=1e-5)


def test_tokens_are_averages_of_the_patches_below_them():
    """Patches that hold their own place; 16 along an edge, so that fine tokens are patches."""
    line = (2 * torch.arange(16) + 1) / 16 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    assert torch.allclose(pooled(torch.stack([x, y], dim=-1)[None])[0], places(), atol=1e-6)


@pytest.mark.parametrize("patches", [1, 7, 14, 24, 27])
def test_any_number_of_patches_gives_the_same_tokens_on_offer(patches):
    assert pooled(torch.rand(2, patches, patches, 3)).shape == (2, 336, 3)
    flat = pooled(torch.full((1, patches, patches, 3), 0.25))
    assert torch.allclose(flat, torch.full_like(flat, 0.25))


def test_the_answers_are_the_most_frequent_ones(cars):
    split = manifest.read_split(manifest.read(cars), "train")
    assert answers.most_frequent(split, 99) == ("green", "no", "red", "yes")
    often = answers.most_frequent(split, 2)
    assert len(often) == 2
    assert set(often) < {"green", "no", "red", "yes"}


def test_every_answer_is_worth_what_the_benchmark_gives_for_it(cars, tmp_path):
    """Score each answer as if it were the prediction, by the evaluator of results files."""
    data = manifest.read(cars)
    split = manifest.read_split(data, "test")
    choices = ("dark red", "green", "no", "red", "yes")
    targets = answers.soft_targets(cars, "test", split.ids, choices)
    for number, answer in enumerate(choices):
        path = tmp_path / f"{number}.json"
        said = [{"question_id": int(name), "answer": answer} for name in split.ids]
        path.write_text(json.dumps(said))
        rows = score("vqav2", path, cars).questions.to_pylist()
        worth = {row["question_id"]: row["correct"] for row in rows}
        found = (targets.score_NJ * (targets.candidate_NJ == number)).sum(axis=1)
        assert found.tolist() == pytest.approx([worth[name] for name in split.ids])
    assert 0 < targets.score_NJ[targets.candidate_NJ == 0].max() < 1  # two of ten said it


def test_a_data_set_of_one_answer_a_question_has_no_agreement(small_data):
    split = manifest.read_split(manifest.read(small_data), "train")
    assert answers.soft_targets(small_data, "train", split.ids, ("rows",)) is None


def test_the_loss_is_least_where_likelihoods_are_the_scores(network, opened, cars):
    split = manifest.read_split(manifest.read(cars), "train")
    net, (_, preprocessor) = network(), opened["clip"]
    soft_targets = SoftTargets(
        np.tile([0, 3], (len(split.ids), 1)), np.tile([0.9, 0.3], (len(split.ids), 1))
    )
    batch = split_reader(
        cars, split, preprocessor, ("red", "no", "yes", "dark red", "x"), soft_targets
    ).read([0], 0)
    reply = net(batch.image_BPP3, batch.word_BQL)
    losses = {}
    for share in (0.65, 0.75, 0.85):
        logit_A = torch.tensor([share, 1e-9, 1e-9, 1 - share, 1e-9]).log()
        said = logit_A.expand_as(reply.answer_BQA)
        losses[share] = loss_sum(replace(reply, answer_BQA=said), batch).item()
    assert min(losses, key=lambda share: losses[share]) == 0.75  # 0.9 / (0.9 + 0.3)
    right, asked = count_right(replace(reply, answer_BQA=said), batch)
    assert (right.item(), asked.item()) == (pytest.approx(0.9 * 2), 2)


def test_batches_of_the_profile_can_be_read_by_forked_workers(opened, cars):
    split = manifest.read_split(manifest.read(cars), "train")
    source = split_reader(cars, split, opened["clip"][1], ("red", "green"))
    loader = torch.utils.data.DataLoader(
        Batches(source, 1, 4, 0, 0, 1), batch_size=None, num_workers=1
    )
    assert next(iter(loader)).image_BPP3.shape == (4, 32, 32, 3)
