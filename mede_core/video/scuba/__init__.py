"""SCUBA: out-of-context clips. ``build`` makes them (``mede scuba``), ``frames`` reads them as a dataset."""
