"""The metrics of VQAv2, GQA, TextVQA and VizWiz; README.md says what they agree with."""
