"""What is tried by hand: ``explorers``, ``bias_lab``, ``your_video``, ``steps``, ``browser`` and ``live`` (widgets),
with ``scenes``, their pictures, and ``gwa_accuracy``; the meta-step on two parameters (``toy``) and on a model
(``diagnostics``); ``geometry`` of a trajectory; ``map_tests``.
"""
