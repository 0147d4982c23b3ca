"""On what, with what and when the numbers of a report were made."""

from collections.abc import Iterable, Sequence

from bn_jax.report.results import curves


def facts(runs: Sequence[curves.Run]) -> dict[str, str]:
  """What is known of it, by name; all that there are, where seeds differ."""
  manifests = [seed.manifest for run in runs for seed in run.seeds]
  return {
    'Device': _distinct(
      f'{m["device"]["count"]} × {m["device"]["kind"]}' for m in manifests
    ),
    'Layout': _distinct(m['layout'] for m in manifests),
    'Precision': _distinct(
      f'training in {m["precision"]["dtype"]}, products in '
      f'{m["precision"]["training"]} precision; measures in float32, '
      f'{m["precision"]["measures"]}'
      for m in manifests
    ),
    'Versions': _distinct(
      ', '.join(f'{name} {version}' for name, version in m['versions'].items())
      for m in manifests
    ),
    'Code': _distinct(m['git_commit'] or 'not in git' for m in manifests),
    'Written': _range([m['written'] for m in manifests]),
  }


def _distinct(values: Iterable[str]) -> str:
  return '; '.join(dict.fromkeys(values))


def _range(times: Sequence[str]) -> str:
  """'first to last' of times in ISO 8601, which sort as text."""
  return ' to '.join(dict.fromkeys((min(times), max(times))))
