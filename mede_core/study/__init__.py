"""The study: does cross-batch meta-optimization with GWA remove static bias? ``python -m mede_core.study SECTION``.

``units.py`` lists what is trained and tested, ``measure.py`` tests, ``run.py`` does both and goes on where it was
stopped, ``store.py`` keeps the results that are committed, ``claims.py`` draws the verdicts.
"""
