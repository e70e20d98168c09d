"""What turns gradients into steps: AdamW, and Muon, with which the course's U-Nets learn from fewer images."""

import math
from functools import partial

import torch

from course_lib.arguments import one_of, positive

MATRIX = 16  # inputs and outputs from which on a weight is treated as a matrix: first and last layers stay below
BETAS = (0.9, 0.99)


def orthogonalised(matrix):
    """About the nearest matrix with orthonormal rows, or columns if these are fewer: U V^T for U S V^T, (m, n).

    Five steps of a Newton-Schulz iteration in bfloat16, whose singular values end between 0.7 and 1.2: precise enough
    for a step. Jordan et al., Muon (2024, kellerjordan.github.io/posts/muon), with their coefficients.
    """
    x = matrix.bfloat16()
    x = x.T if len(matrix) > matrix[0].numel() else x
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(5):
        square = x @ x.T
        change = torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315)
        x = torch.addmm(x, change, x, beta=3.4445)  # 3.4445 x - 4.7750 (x x^T) x + 2.0315 (x x^T)^2 x
    x = x.T if len(matrix) > matrix[0].numel() else x
    return x.to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Each weight matrix moves along its orthogonalised momentum, so that all directions are learnt at one pace (Jordan
    et al., 2024); a convolution's is (outputs, inputs times pixels). The rest, by AdamW:
    biases, norms, and what has fewer than 16 inputs or outputs, as the first and the last layer of images have, and an
    embedding of fewer than 16 classes. A larger embedding counts as a matrix.

    Of either, a weight moves by about 0.2 lr a step: the step of a matrix is scaled so (Liu et al., Muon is scalable
    for LLM training, 2025, eq. 4), and AdamW has the rate 0.2 lr. So lr is larger than for AdamW alone.
    """

    def __init__(self, parameters, lr, momentum=0.95):
        positive(lr=lr)
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        """One step for every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim > 1 and min(parameter.shape[:2]) >= MATRIX:
                    self._matrix_step(parameter, group["lr"], group["momentum"])
                else:
                    self._adam_step(parameter, group["lr"])

    def _matrix_step(self, weight, lr, momentum):
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - momentum)
        ahead = weight.grad.lerp(state["momentum"], momentum).flatten(1)  # Nesterov
        length = 0.2 * math.sqrt(max(ahead.shape))
        weight.add_(orthogonalised(ahead).view(weight.shape), alpha=-lr * length)

    def _adam_step(self, weight, lr):
        state = self.state[weight]
        if not state:
            state["first"], state["second"] = torch.zeros_like(weight), torch.zeros_like(weight)
            state["step"] = torch.zeros(())
        state["step"] += 1
        first, second, k = state["first"], state["second"], state["step"].item()
        first.lerp_(weight.grad, 1 - BETAS[0])
        second.lerp_(weight.grad.square(), 1 - BETAS[1])
        spread = (second / (1 - BETAS[1] ** k)).sqrt() + 1e-8
        weight.addcdiv_(first, spread, value=-0.2 * lr / (1 - BETAS[0] ** k))


OPTIMIZERS = {"AdamW": partial(torch.optim.AdamW, betas=BETAS, weight_decay=0.0), "Muon": Muon}


def make(name, parameters, lr):
    """The optimizer of that name, "AdamW" or "Muon". Raises ValueError for another name, or a rate that is not
    positive."""
    one_of(OPTIMIZERS, optimizer=name)
    positive(lr=lr)
    return OPTIMIZERS[name](parameters, lr=lr)
