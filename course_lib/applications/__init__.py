"""What the course does with diffusion models and no room of the theory holds: one module an application."""
