#!/bin/bash
# One training on all hosts of a TPU slice: TPU_NAME=... ZONE=... tpu_pod.sh
# --config=FILE --workdir=/shared/... Checked for syntax only. The repository
# lies in ~/bn_jax of every host, with its requirements and jax[tpu]; the
# processes find each other (--distributed=auto).
set -eu
: "${TPU_NAME:?the name of the slice}" "${ZONE:?where it is}"
words=$(printf '%q ' "$@")
gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all \
  --command="cd bn_jax && python train.py $words"
