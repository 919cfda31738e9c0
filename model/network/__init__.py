"""ARR-COC: a visual question answering network with an exact budget of image tokens.

Three ways of knowing look at the regions of an image and say how relevant each is to the
question (propositional, perspectival, participatory); a balancer weighs them against each
other; an allocator spends the budget: one region in full detail, most at half, some at a
quarter of the resolution; a reader answers from the tokens that were bought, and from
nothing else. `network.py` shows the whole; each part has a file.

Shape legend of all files in this folder
    B  images            Q  questions of an image     L  words of a question
    R  regions (16)      T  tokens on offer (336)     W  width
    C  cells per region  S  scorers (3)               H  attention heads
    A  answers           P  pixels along an edge (80)
"""
