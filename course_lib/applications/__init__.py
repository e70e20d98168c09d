"""What diffusion models are used for, a module each: anomalies, counterfactuals, denoising, segmentation, and classical
baselines."""
