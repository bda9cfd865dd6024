"""Layers that compute as Keras's do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _sum_over_processes(values: Tensor) -> Tensor:
    from torch.distributed.nn.functional import all_reduce  # its gradient is summed, too

    return all_reduce(values)


class BatchNorm(nn.BatchNorm2d):
    """Keras's BatchNormalization over the channel axis of (N, C) or (N, C, ...).

    Differs from torch's in momentum (Keras 0.99 is torch 0.01), epsilon (1e-3 for 1e-5), and in that the
    moving variance takes up the biased batch variance. A frozen layer (no parameter requires a gradient)
    keeps its statistics and uses them, as Keras's `trainable = False` does; so does a batch of no images.
    """

    def __init__(
        self,
        channels: int,
        epsilon: float = 1e-3,
        momentum: float = 0.99,
        scale: bool = True,
        center: bool = True,
    ) -> None:
        super().__init__(channels, eps=epsilon, momentum=1 - momentum)
        if not scale:
            self.register_parameter("weight", None)
        if not center:
            self.register_parameter("bias", None)
        self.synchronised = False  # over the processes of a distributed run

    def reset_parameters(self) -> None:
        """Statistics and, where there are any, weights as at first."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def _frozen(self) -> bool:
        own = [parameter for parameter in (self.weight, self.bias) if parameter is not None]
        return bool(own) and not any(parameter.requires_grad for parameter in own)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C) or (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        # In this order: of a model in evaluation, torch.fx can trace no more than the first.
        if not self.training or self._frozen or (input.numel() == 0 and not self.synchronised):
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        self._check_input_dim(input)
        if self.synchronised:
            return self._over_processes(input)
        # With momentum 1 these become the batch's own mean and unbiased variance. They are new tensors
        # because autograd holds what it is given: the buffers themselves must not change under it.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        output = torch.batch_norm(
            input, self.weight, self.bias, mean, variance, True, 1.0, self.eps, torch.backends.cudnn.enabled
        )
        count = input.numel() // input.shape[1]
        self._take_up(mean, variance * ((count - 1) / count) if count > 1 else torch.zeros_like(variance))
        return output

    @torch.no_grad()
    def _take_up(self, mean: Tensor, biased: Tensor) -> None:
        """Let a batch's statistics into the moving ones."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if not self.track_running_stats:
            return
        share = self.momentum
        if share is None:  # torch's word for the plain mean of all batches: swa_utils.update_bn sets it
            assert self.num_batches_tracked is not None
            share = 1.0 / float(self.num_batches_tracked.add_(1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(biased.to(self.running_var.dtype), share)

    def _over_processes(self, input: Tensor) -> Tensor:
        """The batch's statistics are those of all processes; nn.SyncBatchNorm does that on CUDA alone."""
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        wide = input.to(torch.promote_types(input.dtype, torch.float32))  # a sum of halves is none
        count = torch.tensor(float(input.numel() // input.shape[1])).to(wide)
        sums = _sum_over_processes(torch.cat([wide.sum(axes), count[None]]))
        mean = sums[:-1] / sums[-1]
        centred = wide - mean.view(shape)
        variance = _sum_over_processes(centred.square().sum(axes)) / sums[-1]
        self._take_up(mean, variance)
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else self.weight * scale
        output = centred * scale.view(shape)
        return (output if self.bias is None else output + self.bias.view(shape)).to(input.dtype)


class Flatten(nn.Module):
    """Flatten (N, C, ...) to (N, ... * C): Keras's order, in which the channel runs fastest."""

    def forward(self, input: Tensor) -> Tensor:
        return input.movedim(1, -1).flatten(1)
