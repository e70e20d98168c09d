"""The library of the course *Diffusion Models for Medical Imaging*.

Three nouns carry everything: a schedule (:mod:`course_lib.schedules`), a denoiser (:mod:`course_lib.denoisers`)
and a sampler (:mod:`course_lib.samplers`). Importing this package imports nothing heavy: torch comes with the
module that needs it, MONAI only when a network is built.
"""
