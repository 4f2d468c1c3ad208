"""Clips whose static bias has a dial (``synthetic``, ``render``), and the small CLIP of them (``pretrain``)."""
