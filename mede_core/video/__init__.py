"""Real videos, from files and lists to clips.

``prepare`` makes a list of a dataset's videos (``mede prepare``), ``manifest`` reads one, in any form that ``lists``
and ``classes`` know; ``decode`` says what a video holds and reads frames of it, by the times of ``timeline``; ``clips``
and ``sampling`` make datasets of them, ``prompts`` the texts of their classes, ``protocol`` what the core trains and
tests on; ``predict`` names the action in one video (``mede predict``). Out-of-context clips are in ``scuba``.
"""
