#!/usr/bin/env bash
# curl as the README uses it, against a server of the demo model.
#
# usage: curl_client.sh BASE_URL EVAL_DIR      prints a line a case; the last is 'N passed, N failed'
set -uo pipefail
base=$1 eval_dir=$2
passed=0 failed=0
key='Authorization: Bearer key-of-the-clients-test'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# check NAME EXPECTED ACTUAL: a line, and the count.
check() {
  if [[ $3 == *"$2"* ]]; then
    passed=$((passed + 1))
    echo "ok      $1"
  else
    failed=$((failed + 1))
    echo "FAILED  $1: expected '$2' in: ${3:0:400}"
  fi
}

question='Day or night?'
answer=$(python3 -c "import json,sys; t=json.load(open(sys.argv[1]))[0]; print(next(q['answer'] for q in t['questions'] if q['question'] == sys.argv[2]))" \
  "$eval_dir/truth.json" "$question")
picture=$eval_dir/scene-00.png
cat >"$folder/chat.json" <<JSON
{"model": "toytown", "messages": [{"role": "user", "content": [
  {"type": "image_url", "image_url": {"url": "data:image/png;base64,$(base64 -w0 "$picture")"}},
  {"type": "text", "text": "$question"}]}]}
JSON
sed 's/"model": "toytown",/"model": "toytown", "stream": true,/' "$folder/chat.json" >"$folder/stream.json"

check "health without a key" '"ready"' "$(curl -sS "$base/health/ready")"
check "a key is asked for" 'invalid_api_key' "$(curl -sS "$base/v1/models")"
check "models" '"toytown"' "$(curl -sS -H "$key" "$base/v1/models")"
check "chat" "$answer" "$(curl -sS -H "$key" -H 'Content-Type: application/json' -d "@$folder/chat.json" "$base/v1/chat/completions")"
stream=$(curl -sSN -H "$key" -H 'Content-Type: application/json' -d "@$folder/stream.json" "$base/v1/chat/completions")
check "stream" 'data: [DONE]' "$stream"
check "stream begins with the role" '"role":"assistant"' "$(head -1 <<<"$stream")"
id=$(curl -sS -H "$key" -H 'Content-Type: image/png' --data-binary "@$picture" "$base/v1/images" | grep -o '"id":"[0-9a-f]*"' | cut -d'"' -f4)
check "upload" "$id" "$(curl -sS -H "$key" -F "image=@$picture" "$base/v1/images")"
check "an id has 64 digits" '64' "${#id}"
check "ask by id" "$answer" "$(curl -sS -H "$key" -H 'Content-Type: application/json' "$base/v1/ask" -d \
  "{\"model\": \"toytown\", \"images\": [{\"type\": \"image_id\", \"image_id\": \"$id\"}], \"questions\": [\"$question\", \"Is there a house?\"]}")"
check "large upload with Expect" '"id"' "$(curl -sS -H "$key" -H 'Expect: 100-continue' -H 'Content-Type: image/png' --data-binary "@$picture" "$base/v1/images")"
check "chunked upload" '"id"' "$(curl -sS -H "$key" -H 'Transfer-Encoding: chunked' -H 'Content-Type: image/png' --data-binary "@$picture" "$base/v1/images")"
check "delete" '"deleted":true' "$(curl -sS -H "$key" -X DELETE "$base/v1/images/$id")"
check "error object" '"param":"temperature"' "$(curl -sS -H "$key" -H 'Content-Type: application/json' -d '{"model":"toytown","messages":[{"role":"user","content":"x"}],"temperature":"hot"}' "$base/v1/chat/completions")"
check "head" '200' "$(curl -sS -o /dev/null -w '%{http_code}' -I "$base/health/live")"
check "metrics" 'vllm:num_requests_running' "$(curl -sS -H "$key" "$base/metrics")"

echo "$(curl --version | head -1 | cut -d' ' -f1,2): $passed passed, $failed failed"
((failed == 0))
