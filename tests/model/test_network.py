"""The network's promises: an exact budget, gradients everywhere, ablations that remove."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.network.allocator import FINE, Allocator, bought, levels_by_rank
from model.network.levels import COSTS, PIXELS, REGIONS, Levels, cover, offer_of_token
from model.network.network import BUDGET, Ablation, Network, Sizes
from model.network.reader import HEADS, Hop, facts
from model.training.box_losses import counted_shares
from tests.model.gradients import ROUNDING, largest_gradients

ABLATIONS = (
    "no-propositional",
    "no-perspectival",
    "no-participatory",
    "uniform-lod",
    "no-opponent-processing",
)
TOKENS_BY_OFFER = offer_of_token().sum(dim=1)
WORDS = torch.tensor([[[1, 2, 3], [2, 4, 0]]])
WITHOUT_EFFECT = tuple(f"levels.mixes.{level}.across.2.bias" for level in range(len(COSTS)))


def network(ablation: Ablation = "none", seed=0, *, glance=False):
    torch.manual_seed(seed)
    return Network(Sizes(16, 9, 5, ablation, glance))


def picture(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, PIXELS, PIXELS, 3), generator=generator, dtype=torch.uint8)


def parameters_of(part, net):
    return [name for name, _ in net.named_parameters() if part in name]


numbers = st.floats(width=32) | st.sampled_from([0.0, 1.0, float("inf"), float("nan")])


@settings(deadline=None)
@given(st.lists(numbers, min_size=REGIONS, max_size=REGIONS))
def test_the_budget_is_exact_for_every_relevance(relevance):
    level_BQR = Allocator(BUDGET, 1)(torch.tensor([[relevance]], dtype=torch.float32))
    assert (bought(level_BQR).float() @ TOKENS_BY_OFFER).tolist() == [[BUDGET]]
    assert bought(level_BQR).sum().item() == REGIONS  # each region once, at one level


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 127, 255]), st.sampled_from(ABLATIONS))
def test_the_budget_is_exact_for_every_image(seed, flat, ablation):
    pixels = picture(seed) if seed % 2 else torch.full_like(picture(), flat)
    for name in ("none", ablation):
        with torch.no_grad():
            level_BQR = network(name)(pixels, WORDS).level_BQR
        assert (bought(level_BQR).float() @ TOKENS_BY_OFFER).unique().tolist() == [BUDGET]


@pytest.mark.parametrize("fine", [0, 1, 2, 3])
def test_levels_cost_the_budget_and_the_best_come_first(fine):
    level_R = levels_by_rank(BUDGET, fine)
    assert sum(COSTS[level] for level in level_R) == BUDGET
    assert level_R.tolist() == sorted(level_R.tolist(), reverse=True)
    assert (level_R == FINE).sum() == fine


@pytest.mark.parametrize(("budget", "fine"), [(63, 1), (15, 0), (64, 4), (300, 1)])
def test_a_budget_that_no_mixture_costs_is_refused(budget, fine):
    with pytest.raises(ValueError, match="do not go together"):
        levels_by_rank(budget, fine)


def test_the_most_relevant_region_is_bought_in_full_detail():
    relevance = torch.arange(REGIONS, dtype=torch.float32)[None, None]
    assert (
        Allocator(BUDGET, 1)(relevance)[0, 0].tolist() == levels_by_rank(64, 1).flip(0).tolist()
    )


@pytest.mark.parametrize("glance", [False, True])
@pytest.mark.parametrize("ablation", ["none", *ABLATIONS])
def test_the_answer_s_gradient_alone_reaches_every_parameter(ablation, glance):
    """Every one that can have any influence: see the next test for the others."""
    largest = largest_gradients(
        lambda draw: network(ablation, draw, glance=glance), lambda draw: (picture(draw), WORDS)
    )
    unmoved = {name for name, norm in largest.items() if norm < ROUNDING}
    if ablation == "uniform-lod":  # which never buys anything fine
        fine = ("levels.mixes.2", "levels.cells.2")
        unmoved = {name for name in unmoved if not name.startswith(fine)} | {WITHOUT_EFFECT[2]}
    assert unmoved == set(WITHOUT_EFFECT)


@pytest.mark.parametrize("glance", [False, True])
@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_what_layer_norms_take_out_again_has_no_influence(name, glance):
    """One number for all features of a token: its gradient is 0, but for rounding."""
    net = network(glance=glance).eval()
    before = net(picture(), WORDS).answer_BQA
    with torch.no_grad():
        net.get_parameter(name).add_(torch.linspace(-1, 1, len(net.get_parameter(name))) + 0.5)
    assert torch.allclose(net(picture(), WORDS).answer_BQA, before, atol=1e-5)


@pytest.mark.parametrize(
    ("ablation", "part"),
    [
        ("no-propositional", "propositional"),
        ("no-perspectival", "perspectival"),
        ("no-participatory", "participatory"),
        ("no-participatory", "gist"),
        ("no-participatory", "near"),
        ("no-opponent-processing", "balancer"),
    ],
)
def test_an_ablation_removes_the_parameters(ablation, part):
    assert parameters_of(part, network())
    assert not parameters_of(part, network(ablation))


@pytest.mark.parametrize(
    ("ablation", "part"),
    [
        ("no-propositional", "propositional"),
        ("no-perspectival", "perspectival"),
        ("no-participatory", "participatory"),
    ],
)
def test_an_ablated_scorer_is_never_asked(ablation, part, monkeypatch):
    module = f"model.network.{part}.{part.capitalize()}.forward"
    asked = []

    def listen(self, image, *question):
        asked.append(part)
        return torch.zeros((len(image), *(q.shape[1] for q in question), REGIONS))

    expected = network(ablation)(picture(), WORDS).answer_BQA
    monkeypatch.setattr(module, listen)
    assert torch.equal(network(ablation)(picture(), WORDS).answer_BQA, expected)
    assert not asked
    network()(picture(), WORDS)
    assert asked


def test_uniform_detail_does_not_follow_relevance_but_keeps_the_scorers():
    net = network("uniform-lod")
    level = [net(picture(seed), WORDS).level_BQR for seed in range(3)]
    assert torch.stack(level).unique().tolist() == [1]
    assert parameters_of("propositional", net)
    assert parameters_of("balancer", net)


def test_without_opponent_processing_the_scorers_weigh_the_same_and_nothing_is_explored():
    net = network("no-opponent-processing")
    assert net.explore(1, 2, torch.Generator()) is None
    assert net(picture(), WORDS).weight_BQS.unique().tolist() == pytest.approx([1 / 3])


def test_detail_that_was_not_bought_cannot_matter():
    """Change a region by what vanishes at its level, and hold the scorers still."""
    net = network().eval()
    before = net(picture(), WORDS[:, :1])
    level_R = before.level_BQR[0, 0]
    image_B3PP = picture().permute(0, 3, 1, 2).float() / 255 - 0.5
    wanted_BO = bought(before.level_BQR)[:, 0]
    wanted_BO[:, :REGIONS] = True
    tokens = net.levels(image_B3PP, wanted_BO)
    stripes = torch.tensor([[0.2, -0.2], [0.2, -0.2]]).repeat(PIXELS // 8, PIXELS // 8)
    for region, level in enumerate(level_R.tolist()):
        changed = image_B3PP.clone()
        y, x = (REGIONS // 4) * 5 * (region // 4), (REGIONS // 4) * 5 * (region % 4)
        changed[:, :, y : y + 20, x : x + 20] += stripes
        same = torch.allclose(net.levels(changed, wanted_BO), tokens, atol=1e-5)
        assert same == (level != FINE)


def test_a_glance_tells_nothing_that_vanishes_at_a_quarter_of_the_resolution():
    net = network(glance=True).eval()
    image_B3PP = picture().permute(0, 3, 1, 2).float() / 255 - 0.5
    assert net.glance is not None
    tokens = torch.randn(1, int(TOKENS_BY_OFFER.sum()), 16)
    stripes = torch.tensor([[0.2, -0.2], [0.2, -0.2]]).repeat(PIXELS // 2, PIXELS // 2)
    before, striped, inverse = (
        torch.cat(net.glance(image, tokens), dim=-1)
        for image in (image_B3PP, image_B3PP + stripes, -image_B3PP)
    )
    assert torch.allclose(striped, before, atol=1e-5)
    assert not torch.allclose(inverse, before)


def test_without_a_glance_nothing_relates_or_counts():
    assert parameters_of("tally", network(glance=True))
    for part in ("glance", "tally", "where"):
        assert not parameters_of(part, network())
    reply = network()(picture(), WORDS)
    assert reply.found_BQ2 is reply.amount_BQT is None


def test_a_hop_that_prefers_what_is_near_looks_closest_to_the_point_it_knows():
    torch.manual_seed(0)
    hop = Hop(16, known=2, steep=1.0)
    assert hop.near is not None
    nothing = torch.zeros(1, 1, 16)
    bought_BQO = torch.ones(1, 1, len(COSTS) * REGIONS, dtype=torch.bool)
    point_BT2 = 2 * torch.rand(1, int(TOKENS_BY_OFFER.sum()), 2) - 1
    known = [torch.tensor([[[0.9, 0.9]]]), torch.tensor([[[-0.3, 0.4]]])]
    far_T = (point_BT2[0] - known[1][0]).square().sum(dim=-1)
    for sign, best in ((1.0, far_T.argmin()), (-1.0, far_T.argmax())):
        with torch.no_grad():
            hop.near.weight.zero_()
            hop.near.bias.copy_(torch.tensor([0.0, 20.0 * sign] * HEADS))
            tokens, relevance = torch.zeros(1, far_T.numel(), 16), bought_BQO.float().log()
            fact = facts(point_BT2)[:, None]
            _, share_BHQT = hop(nothing, tokens, bought_BQO, relevance, known, fact)
        assert share_BHQT[0, :, 0].argmax(dim=-1).tolist() == [best] * HEADS


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 60)] * 2), min_size=1, max_size=6), st.integers())
def test_what_the_boxes_say_of_the_tokens_adds_up_to_the_count(corners, seed):
    """Also where the allocation buys a box partly fine and partly coarse."""
    box = torch.tensor([[[(x, y, x + 20, y + 10) for x, y in corners]]]) / 40 - 1
    generator = torch.Generator().manual_seed(seed % 2**31)
    level = levels_by_rank(BUDGET, 1)[torch.randperm(REGIONS, generator=generator)]
    share_T = counted_shares(box[0], level[None])[0]
    assert share_T.sum().item() == pytest.approx(len(corners), rel=1e-4)
    bought_T = bought(level[None]).float() @ offer_of_token()
    assert not share_T[bought_T[0] == 0].any()


def test_the_tokens_of_each_level_cover_a_box_exactly():
    box = torch.tensor([[[-0.3, -0.7, 0.15, 0.4]]])
    shares = cover(box)[0, 0].split([REGIONS * cost for cost in COSTS])
    for cost, share in zip(COSTS, shares, strict=True):
        area = share.sum() * 4 / (REGIONS * cost)
        assert area.item() == pytest.approx(0.45 * 1.1, rel=1e-5)
    assert not cover(torch.zeros(1, 1, 4)).any()


@pytest.mark.parametrize("glance", [False, True])
def test_a_token_that_was_not_bought_has_a_share_of_exactly_zero(glance):
    net = network(glance=glance).eval()
    reply = net(picture(), WORDS)
    bought_BQO = bought(reply.level_BQR)
    token_BTW = torch.randn(1, int(TOKENS_BY_OFFER.sum()), 16, requires_grad=True)
    question = torch.randn(1, 2, 16)
    assert net.reader.gist is not None
    torch.nn.init.zeros_(net.reader.gist.weight)  # it looks at all coarse tokens
    point_BT2 = torch.rand(1, int(TOKENS_BY_OFFER.sum()), 2) if glance else None
    read = net.reader(question, token_BTW, bought_BQO, reply.relevance_BQR, point_BT2)
    read.answer_BQA[0, 0].sum().backward()
    assert token_BTW.grad is not None
    used_T = token_BTW.grad[0].abs().sum(dim=1) > 0
    assert torch.equal(used_T, (bought_BQO[0, 0].float() @ offer_of_token()).bool())
    assert used_T.sum() == BUDGET


def test_scores_are_stretched_within_an_image_and_never_over_the_batch():
    net = network().eval()
    alone = net(picture(1), WORDS).answer_BQA
    together = net(torch.cat([picture(1), picture(2)]), WORDS.repeat(2, 1, 1)).answer_BQA
    assert torch.allclose(alone[0], together[0], atol=1e-5)


@pytest.mark.parametrize("texture", ["rows", "columns", "checks"])
def test_every_texture_vanishes_without_a_trace_at_half_the_resolution(texture):
    y, x = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    bright = {"rows": y % 2, "columns": x % 2, "checks": (x + y) % 2}[texture]
    pooled = torch.nn.functional.avg_pool2d((2.0 * bright - 1)[None], 2)
    assert pooled.abs().max() == 0


def test_levels_hold_what_their_places_say():
    """A bright spot shows up in the tokens that lie over it, at every level."""
    torch.manual_seed(0)
    levels = Levels(16)
    dark = torch.zeros(1, 3, PIXELS, PIXELS)
    all_offers = torch.ones(1, len(COSTS) * REGIONS, dtype=torch.bool)
    before = levels(dark, all_offers)
    for row, column in itertools.product((0, 3), repeat=2):
        spot = dark.clone()
        spot[:, :, 20 * row : 20 * row + 20, 20 * column : 20 * column + 20] = 1
        moved_T = (levels(spot, all_offers) - before).abs().sum(dim=-1)[0] > 1e-6
        region = 4 * row + column
        offers = torch.zeros(len(COSTS) * REGIONS)
        offers[region::REGIONS] = 1
        assert torch.equal(moved_T, (offers @ offer_of_token()).bool())
