"""Notebook 01's four families of generative models: the models, their training, and their scores."""
