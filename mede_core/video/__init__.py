"""Real videos: ``prepare`` lists them, ``manifest`` reads a list, ``decode`` reads frames, ``clips`` makes datasets.

``prompts``: texts of classes; ``protocol``: what the core takes; ``predict``: one video; ``scuba``: out of context.
"""
