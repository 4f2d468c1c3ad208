"""SCUBA: out-of-context clips, as ``build`` makes them (``mede scuba``) of ``masks`` and backgrounds."""
