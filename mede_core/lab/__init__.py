"""What is tried by hand: ``explorers``, ``bias_lab``, ``your_video`` and ``gwa_accuracy`` (widgets) with ``scenes``, their pictures;
the meta-step on two parameters (``toy``) and on a model (``diagnostics``); ``geometry`` of a trajectory; ``map_tests``.
"""
