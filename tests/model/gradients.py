"""How strongly an answer's gradient reaches each parameter, over several draws.

One draw may miss a parameter by chance, and a gradient that is 0 in exact arithmetic comes out
as rounding noise, on some processors exactly 0. So the largest of several draws is held against
what rounding can do: the noise is below 1e-7, the least real gradient above 1e-4.
"""

import torch

DRAWS = 4
ROUNDING = 1e-5


def largest_gradients(make_network, make_input):
    """The largest norm of each parameter's gradient, by name.

    Both arguments are functions of the draw's number: the network, and its image and words.
    """
    largest: dict[str, float] = {}
    for draw in range(DRAWS):
        net = make_network(draw)
        dice = net.explore(1, 2, torch.Generator().manual_seed(draw))
        reply = net(*make_input(draw), dice)
        loss = torch.nn.functional.cross_entropy(reply.answer_BQA[0], torch.tensor([1, 3]))
        loss.backward()
        for name, parameter in net.named_parameters():
            norm = 0.0 if parameter.grad is None else parameter.grad.norm().item()
            largest[name] = max(largest.get(name, 0.0), norm)
    return largest
