"""TinyLLaVA Edge, floor 3: from a dataset to a checkpoint folder."""
