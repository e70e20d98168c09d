"""What diffusion models are used for, a module each: `anomaly`, `counterfactual`, `denoising`, `segmentation`,
`raw_scan` (a head measured by several coils), and the `classical` baselines."""
