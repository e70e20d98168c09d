"""The library of the course *Diffusion Models for Medical Imaging*.

Three nouns carry everything: a schedule (:mod:`course_lib.schedules`), a denoiser (:mod:`course_lib.denoisers`)
and a sampler (:mod:`course_lib.samplers`). Importing this package imports nothing heavy: torch comes with the
module that needs it, MONAI only when a network is built.

the three nouns          schedules, predictions, denoisers, samplers
what takes a denoiser    guidance, inverse with operators, likelihood, generate, monai_bridge, conformance
what learns              networks, losses, training with optimizers and compiling, checkpoints, recipes
what ships               pretrained reads weights, eight_bits makes them small
images and data          datasets, images, scans, nifti, hippocampus, tumours
judged, used, compared   metrics, applications, generative, experiments
what a learner sees      viz, exercises
machine and files        runtime, profiling, environment, files, arguments
commands                 train, sample, experiments
"""
