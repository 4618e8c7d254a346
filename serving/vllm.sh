#!/usr/bin/env bash
# Stock vLLM's own server around a bundle, with genrec's routes:   serving/vllm.sh runs/shop --port 8000
# More arguments go to vLLM. GENREC_STORE is the database URL, GENREC_KEYS the key file (or give --api-key).
# On a GPU, `vllm serve` takes the same arguments; this module form also works with the CPU wheel.
set -euo pipefail
bundle=${1:?Usage: serving/vllm.sh BUNDLE [options of vllm serve]}
shift
export VLLM_PLUGINS=genrec VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1}
exec "${PYTHON:-python}" -m vllm.entrypoints.openai.api_server --model "$bundle" --host 127.0.0.1 \
  --hf-overrides '{"architectures": ["GenrecForRecommendation"], "is_encoder_decoder": false}' \
  --worker-extension-cls genrec.serving.vllm.model.WorkerExtension --runner pooling --enforce-eager \
  --dtype float32 --max-model-len 16 --max-num-seqs 64 --max-num-batched-tokens 64 --no-enable-prefix-caching "$@"
