"""ARR-COC on top of a frozen, pretrained image and text encoder: the `vqa` profile.

`folder.py` holds the encoder's files to their digest; `encoder.py` is the encoder (CLIP or
SigLIP), never trained; `senses.py` makes pixels and tokens as the encoder wants them;
`levels.py` and `participatory.py` are ARR-COC's parts that look at what the encoder saw;
`network.py` puts them together with the parts of model/network; `truth.py` has the answers to
choose from and how right each of them is.

Shape legend of all files in this folder: that of model/network, and
    N  patches along an edge      V  features of a patch
    U  features of a text token   M  texts
    I  layers' inner features     J  answers that people gave to a question
"""
