"""What is tried by hand in the notebooks: explorers (widgets), their pictures, and what the teaching notebooks measure.

``explorers`` (weight averages, the meta-step, the dial), ``bias_lab`` and ``gwa_accuracy``; ``scenes``: their pictures;
``toy``: the meta-step on two parameters; ``diagnostics``: one on a real model; ``geometry``: a trajectory in weight
space; ``map_tests``: which maps to believe; ``contents``: the contents page.
"""
