"""What diffusion models are used for, a module each: anomalies, counterfactuals, denoising, and classical baselines."""
