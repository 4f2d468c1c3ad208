"""The study: does cross-batch meta-optimization with GWA remove static bias? ``mede study SECTION``.

``units`` lists what is trained and tested, ``measure`` does both and goes on where it was stopped,
``store`` keeps the results that are committed, ``answers`` and ``answers_training`` read them, ``claims`` draws the
verdicts; ``world_checks`` measures what makes the world a fair experiment.
"""
