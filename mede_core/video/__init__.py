"""Real videos: ``prepare`` lists them, ``manifest`` reads a list, ``decode`` reads frames, ``clips`` makes datasets.

``prompts`` are the texts of classes, ``protocol`` is what the core trains and tests on, ``predict`` names the action in
one video, ``scuba`` makes out-of-context clips.
"""
