"""Trains a network in turns, with PyTorch; see `train_step`.

  python train_step_torch.py FORM NETWORK FOLDER DTYPE

PyTorch pads a convolution of stride 2 alike on both sides, where ours has less
before a map than after it. So that both may do what is usual, maps are mirrored
here: the images and all kernels, which gives the same logits.
"""

import pathlib
import sys
import time

import numpy as np
import processes
import torch
import train_step_networks as networks
from torch import nn
from torch.nn import functional

RATE, MOMENTUM = 0.01, 0.9
_LAST = -1  # of the two pixels of a window, the mirrored first


class Network(nn.Module):
  """A network with our parameters; its layers are PyTorch's functions."""

  def __init__(self, case: networks.Case, params: dict[str, torch.Tensor]):
    super().__init__()
    self._case = case
    for name, array in params.items():
      name = _name(name)
      self.register_parameter(name, nn.Parameter(array))
      if name.endswith('norm:scale'):
        for buffer in ('mean', 'var'):
          self.register_buffer(
            name.replace('scale', buffer), torch.zeros_like(array)
          )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns the logits of images, [N, C, H, W]."""
    return self._case.forward(self, x)

  def normalised(self, x, name, features, size, stride):
    del features  # of the kernel
    x = functional.conv2d(
      x, self._array(f'{name}/kernel'), stride=stride, padding=size // 2
    )
    norm = f'{name}_norm'
    return functional.batch_norm(
      x, self._array(f'{norm}/mean'), self._array(f'{norm}/var'),
      self._array(f'{norm}/scale'), self._array(f'{norm}/bias'),
      training=True,
    )  # fmt: skip

  def relu(self, x):
    return functional.relu(x, inplace=True)

  def add(self, x, y):
    return x + y

  def shortcut(self, x, features):
    x = x[:, :, 1::2, 1::2]
    return functional.pad(x, (0, 0, 0, 0, 0, features - x.shape[1]))

  def max_pool(self, x, size, stride):
    return functional.max_pool2d(x, size, stride, padding=(size - 1) // 2)

  def average_pool(self, x):
    return functional.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)

  def concatenate(self, maps):
    return torch.cat(maps, dim=1)

  def logits(self, x, classes):
    del classes
    return functional.linear(
      x.mean((2, 3)), self._array('logits/kernel'), self._array('logits/bias')
    )

  def _array(self, name):
    return getattr(self, _name(name))


def _name(name: str) -> str:
  return name.replace('/', ':')


def mirrored(kernel: np.ndarray) -> np.ndarray:
  """Returns a kernel of ours as PyTorch has it: HWIO -> OIHW, or IO -> OI."""
  if kernel.ndim == 4:
    return kernel[::-1, ::-1].transpose(3, 2, 0, 1)
  return kernel.T


class Training:
  """A network, its batch and its optimizer; answers what `train_step` asks."""

  def __init__(self, form: str, network: str, folder: pathlib.Path, dtype: str):
    self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
    self._autocast = torch.autocast(
      self._device, torch.bfloat16, enabled=dtype == 'bfloat16'
    )
    layout = torch.contiguous_format if form == 'nchw' else torch.channels_last
    with np.load(folder / 'params.npz') as arrays:
      params = {
        name: torch.tensor(
          np.ascontiguousarray(mirrored(arrays[name])), device=self._device
        )
        for name in arrays
      }
    with np.load(folder / 'batch.npz') as arrays:
      images = arrays['images'][:, ::-1, ::-1].transpose(0, 3, 1, 2)
      self._labels = torch.tensor(
        arrays['labels'], dtype=torch.long, device=self._device
      )
    images = torch.tensor(np.ascontiguousarray(images), device=self._device)
    self._images = images.contiguous(memory_format=layout)
    self._module = Network(networks.CASES[network], params)
    self._module.to(memory_format=layout).train()
    self._optimizer = torch.optim.SGD(
      self._module.parameters(), lr=RATE, momentum=MOMENTUM
    )
    self._forward = self._module
    if form == 'compiled':
      self._forward = torch.compile(self._module)

  def steps(self, count: int) -> dict[str, float]:
    """Takes steps; returns the seconds of one, and the last loss."""
    start = time.perf_counter()
    for _ in range(count):
      self._optimizer.zero_grad()
      with self._autocast:
        logits = self._forward(self._images)
      loss = functional.cross_entropy(logits.float(), self._labels)
      loss.backward()
      self._optimizer.step()
    value = loss.item()  # which waits for the device
    seconds = (time.perf_counter() - start) / count
    return {'seconds': seconds, 'loss': value}

  def memory(self) -> dict[str, float]:
    """Returns the most memory of the device, or of the process."""
    if self._device == 'cuda':
      return {'peak_mb': torch.cuda.max_memory_allocated() / 1e6}
    return processes.memory()

  def save(self, path: str) -> None:
    """Writes the parameters, as ours are."""
    arrays = {}
    for name, value in self._module.named_parameters():
      array = value.detach().cpu().numpy()
      if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)[::-1, ::-1]
      arrays[name.replace(':', '/')] = array.T if array.ndim == 2 else array
    np.savez(path, **arrays)


def main() -> None:
  form, network, folder, dtype = sys.argv[1:]
  training = Training(form, network, pathlib.Path(folder), dtype)
  processes.serve(
    {
      'ready': lambda: None,
      'steps': training.steps,
      'save': training.save,
      'memory': training.memory,
    }
  )


if __name__ == '__main__':
  main()
