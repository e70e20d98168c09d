"""Measures of quality, each with its floor: what real data scores against real data."""
