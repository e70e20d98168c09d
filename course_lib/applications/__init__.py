"""What diffusion models are used for, a module each: `anomaly`, `counterfactual`, `denoising`, `segmentation`, and the
`classical` baselines."""
