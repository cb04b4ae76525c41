#!/bin/sh
# Has a supplier's catalogue harvested by ContextWorker, first by the contract's own service, then by the envelope, with
# JSON over HTTP alone.
set -eu

call() {
  method="$1"
  shift
  curl --silent --show-error --max-time 120 --header 'content-type: application/json' \
    --header "authorization: Bearer ${CONTEXTWORKER_TOKEN:-}" "$@" "http://$CONTEXTWORKER_HTTP_TARGET/$method"
  echo
}

uuid() {
  cat /proc/sys/kernel/random/uuid || uuidgen
}

# The contract's own service answers when the harvest has ended. Calls with the same id are one request: the first one
# answers at once, the second one waits for the same harvest.
request_id="$(uuid)"
call contextunity.harvest.v1.HarvestService/Harvest --dump-header - \
  --header "contextunity-request-id: $request_id" --header 'contextunity-detach: true' \
  --data '{"supplierCode": "camping-trade", "maxProducts": "300"}'
call contextunity.harvest.v1.HarvestService/Harvest --dump-header - \
  --header "contextunity-request-id: $request_id" \
  --data '{"supplierCode": "camping-trade", "maxProducts": "300"}'

# What breaks the contract's rules is refused, with the fields that are wrong.
call contextunity.harvest.v1.HarvestService/Harvest \
  --data '{"supplierCode": "camping-trade", "pageSize": 5000}'

# The envelope answers a start at once. The same unit sent again is the same request.
unit_id="$(uuid)"
for _ in first second; do
  call contextunity.worker.WorkerService/StartWorkflow --data '{
    "unitId": "'"$unit_id"'",
    "payload": {"workflow_type": "harvest", "supplier_code": "camping-trade", "max_products": 300}
  }'
done
call contextunity.worker.WorkerService/GetTaskStatus --data '{
  "payload": {"workflow_id": "harvest/my_project/camping-trade"}
}'
