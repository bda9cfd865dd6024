"""Trains the module on random tensors: put your own, or an ImageFolder, in their place. python -m mobilenet_net.train"""

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from .lightning_module import build, callbacks

if __name__ == "__main__":
    inputs = torch.rand(256, 3, 96, 96)
    targets = torch.randint(0, 10, (256,))
    data = TensorDataset(inputs, targets)
    loader = DataLoader(data, batch_size=32, shuffle=True)
    trainer = pl.Trainer(max_epochs=2, callbacks=callbacks(), logger=False)
    trainer.fit(build(), loader, loader)
