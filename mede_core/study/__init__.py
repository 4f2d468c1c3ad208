"""The study: does cross-batch meta-optimization with GWA remove static bias? ``mede study SECTION``: its ``units`` are
trained and tested by ``measure``, ``store`` keeps results, ``answers`` reads them, ``claims`` draws the verdicts."""
