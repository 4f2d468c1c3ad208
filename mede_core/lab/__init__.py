"""What is tried by hand: ``explorers``, ``bias_lab``, ``your_video``, ``gwa_accuracy`` (widgets) and ``scenes``, their
pictures; the meta-step on two parameters (``toy``) and on a model (``diagnostics``); ``geometry``; ``map_tests``.
"""
