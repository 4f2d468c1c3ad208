"""Real videos: ``prepare`` lists them, ``manifest`` reads a list, ``decode`` reads frames, ``clips`` makes datasets.

``classes``: names and prompts; ``protocol``: what the core takes; ``predict``: one video; ``scuba``: out of context.
"""
