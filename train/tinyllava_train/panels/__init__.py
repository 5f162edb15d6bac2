"""The panel world: drawn instrument panels with questions, for training and for tests."""
