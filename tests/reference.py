"""The oracle: the papers' formulas in float64 NumPy, written to be read."""

import numpy as np


def batch_norm(x, scale, bias, group_size=None, mask=None, epsilon=1e-5):
  """(y, mean, var, count) of Algorithm 1, group after group."""
  x = np.asarray(x, np.float64)
  examples = len(x)
  group_size = group_size or examples
  mask = np.ones(examples, bool) if mask is None else np.asarray(mask)
  y, mean, var, count = np.empty_like(x), [], [], []
  for start in range(0, examples, group_size):
    rows = slice(start, start + group_size)
    real = x[rows][mask[rows]].reshape(-1, x.shape[-1])
    mean.append(real.mean(0) if len(real) else np.zeros(x.shape[-1]))
    var.append(real.var(0) if len(real) else np.zeros(x.shape[-1]))
    count.append(len(real))
    y[rows] = scale * (x[rows] - mean[-1]) / np.sqrt(var[-1] + epsilon) + bias
  return y, np.array(mean), np.array(var), np.array(count)


def lp_norm(
  x, scale, bias, p, centred=False, group_size=None, mask=None, epsilon=1e-5
):
  """(y, mean, scale_p) of Santurkar et al. (2018), section 3.3."""
  x = np.asarray(x, np.float64)
  examples = len(x)
  group_size = group_size or examples
  mask = np.ones(examples, bool) if mask is None else np.asarray(mask)
  y, mean, scale_p = np.empty_like(x), [], []
  for start in range(0, examples, group_size):
    rows = slice(start, start + group_size)
    real = x[rows][mask[rows]].reshape(-1, x.shape[-1])
    mean.append(real.mean(0))
    size = np.abs(real - mean[-1] if centred else real)
    if np.isinf(p):
      scale_p.append(size.max(0) + epsilon)
    else:
      scale_p.append(((size**p).mean(0) + epsilon) ** (1 / p))
    y[rows] = scale * (x[rows] - mean[-1]) / scale_p[-1] + bias
  return y, np.array(mean), np.array(scale_p)


def batch_norm_gradient(x, scale, dy, epsilon=1e-5):
  """(dx, dscale, dbias) as printed in section 3 of the 2015 paper."""
  channels = x.shape[-1]
  x, dy = (
    np.float64(x).reshape(-1, channels),
    np.float64(dy).reshape(-1, channels),
  )
  m = len(x)
  mean, var = x.mean(0), x.var(0)
  normalised = (x - mean) / np.sqrt(var + epsilon)
  d_normalised = dy * scale
  d_var = (d_normalised * (x - mean)).sum(0) * -0.5 * (var + epsilon) ** -1.5
  d_mean = -d_normalised.sum(0) / np.sqrt(var + epsilon)
  d_mean += d_var * (-2 * (x - mean)).sum(0) / m
  dx = d_normalised / np.sqrt(var + epsilon)
  dx += d_var * 2 * (x - mean) / m + d_mean / m
  return dx, (dy * normalised).sum(0), dy.sum(0)


def convolution(x, kernel, strides, padding):
  """Cross-correlation of x, [N, H, W, I], with a kernel, [kH, kW, I, O]."""
  x, kernel = np.float64(x), np.float64(kernel)
  window = kernel.shape[:2]
  if padding == 'SAME':
    pads = []
    for size, k, s in zip(x.shape[1:3], window, strides):
      total = max((-(-size // s) - 1) * s + k - size, 0)
      pads.append((total // 2, total - total // 2))
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
  out = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], window, strides)]
  y = np.zeros((len(x), *out, kernel.shape[-1]))
  for i in range(out[0]):
    for j in range(out[1]):
      top, left = i * strides[0], j * strides[1]
      patch = x[:, top : top + window[0], left : left + window[1]]
      y[:, i, j] = np.einsum('nhwi,hwio->no', patch, kernel)
  return y
