"""Notebook 01's four families of generative models: `models`, their `training`, and their `scoreboard`."""
