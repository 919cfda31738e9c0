"""ARR-COC on top of a frozen, pretrained image and text encoder: the `vqa` profile.

`encoder_files.py` holds the encoder's files to their digest; `encoder.py` is the encoder (CLIP
or SigLIP), never trained; `encoder_config.py` reads its sizes; `preprocessing.py` makes pixels
and tokens as the encoder wants them;
`levels.py` and `participatory.py` are ARR-COC's parts that look at what the encoder saw;
`network.py` puts them together with the parts of model/network; `answers.py` has the answers to
choose from and how right each of them is; `saved_model.py` keeps it all on the disk.

Shape legend of all files in this folder: that of model/network, and
    N  patches along an edge      V  features of a patch
    U  features of a text token   M  texts
    I  layers' inner features     J  answers that people gave to a question
"""
