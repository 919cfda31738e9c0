"""The official files of VQAv2, GQA, TextVQA and VizWiz, read and converted."""
