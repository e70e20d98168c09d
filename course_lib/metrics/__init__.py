"""Measures of quality, each with its floor: what real data scores against real data.

`distribution`: sets of images through features. `images`: reconstructions. `segmentation`: masks. `detection`: scores
of what is rare. `memorisation`: copies. `linear`: denoisers beside the best linear one. `intervals`: how sure any of
them is. `checks`: what they take.
"""
