"""The synthetic world: clips whose static bias has a dial, and the small CLIP that was pretrained on its stills.

``synthetic``: ``World``, ``make_set``, ``test_clips``, ``training_clips``; ``render``; ``pretrain``; ``model_card``.
"""
