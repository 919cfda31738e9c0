"""What boxes teach: each term where the data set tells, and nothing where it does not."""

from dataclasses import replace

import pytest
import torch

from model.dataset.batches import Batch
from model.network.levels import PIXELS
from model.network.network import Network, Sizes
from model.training.box_losses import COUNT, COUNTED, box_losses, counted_shares

BOX = (-0.3, -0.4, 0.2, 0.1)
KINDS = ("box_BQ4", "answer_box_BQ4", "counted_BQK4")


def batch(*told):
    """One image with two questions; the first has the boxes in `told`."""
    boxes = {name: torch.zeros(1, 2, *((3, 4) if "K" in name else (4,))) for name in KINDS}
    for name in told:
        boxes[name].view(2, -1)[0, :4] = torch.tensor(BOX)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, PIXELS, PIXELS, 3), generator=generator)
    none = torch.zeros(1, 2, 0)
    return Batch(
        0, pixels.byte(), torch.tensor([[[1, 2], [3, 0]]]), torch.tensor([[0, 1]]),
        torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2).long(), *boxes.values(),
        none.long(), none, 1, 2,
    )  # fmt: skip


def reply_of(told, *, glance=True):
    torch.manual_seed(0)
    network = Network(Sizes(16, 5, 3, "none", glance)).eval()
    return network(told.image_BPP3, told.word_BQL)


def test_where_no_box_is_known_nothing_is_taught():
    told = batch()
    assert box_losses(reply_of(told), told).item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_box_teaches_by_itself_a_network_that_relates(kind):
    told = batch(kind)
    assert box_losses(reply_of(told), told).item() > 0.01
    assert box_losses(reply_of(told, glance=False), told).item() == 0


def test_amounts_that_are_the_counted_shares_are_right_and_others_cost_their_square():
    told = batch("counted_BQK4")
    reply = reply_of(told)
    share_NT = counted_shares(told.counted_BQK4[0], reply.level_BQR[0])
    right = replace(reply, amount_BQT=share_NT[None])
    assert box_losses(right, told).item() == pytest.approx(0, abs=1e-6)
    wrong_NT = share_NT.clone()
    wrong_NT[0, 5] += 0.5
    wrong = replace(reply, amount_BQT=wrong_NT[None])
    assert box_losses(wrong, told).item() == pytest.approx(
        COUNTED * 0.25 * (1 + COUNT), rel=1e-4
    )
    wrong_NT[1, 5] += 0.5  # the second question counts nothing that is known
    unknown = replace(reply, amount_BQT=wrong_NT[None])
    assert box_losses(unknown, told).item() == box_losses(wrong, told).item()
